"""A job's record in the bucket: claimed before the job, finished after it, answered if it is final.

Only jobs that carry a `request_id` have one. It costs a GET and a PUT before the job and a GET and
a PUT after it.
"""

import logging
import re
from dataclasses import dataclass
from typing import Any, Final

from errors import CodedError
from lora_registry.job_records import JobRecords
from worker.results import error_result

log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A job's hold on its record.

    Attributes:
        records: of the bucket.
        request_id: names the record; None for a job without one.
        answer: what the job answers unserved: its record is final, or could not be claimed.
    """

    records: JobRecords
    request_id: str | None = None
    answer: dict[str, Any] | None = None

    def finish(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Write what the job came to; returns what is answered, an earlier ending where one is."""
        if self.request_id is None or answer.get("code") == "cancelled":
            # Perhaps this worker is being stopped and RunPod gives the job to another one: whoever
            # cancelled it for good writes that into the record.
            return answer
        try:
            record = self.records.finish(self.request_id, answer)
        except CodedError as error:
            # The answer still goes to RunPod, where a gateway finds it and writes the record.
            told = {"request_id": self.request_id, "reason": str(error)}
            log.warning("record not written", extra=told)
            return answer
        written = record.error if "error" in answer else record.result
        kept = {name: value for name, value in answer.items() if name != "refresh_worker"}
        return answer if written == kept else record.outcome


def claim(records: JobRecords, raw: object, job_id: str) -> Claim:
    """Claim the record of a job that is about to be served.

    Args:
        records: of the bucket.
        raw: the job's `input`; one without a usable `request_id` has no record.
        job_id: the platform's id of this job.
    """
    request_id = raw.get("request_id") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(request_id, str):
        return Claim(records)
    if not _REQUEST_ID.fullmatch(request_id):
        return Claim(records)  # the contract refuses it, with the sentence for it
    try:
        record = records.claim(request_id, job_id, str(raw.get("task"))[:64])
    except CodedError as error:
        # Without the claim another worker might make the same request: better none than two.
        log.warning("job not claimed", extra={"request_id": request_id, "reason": str(error)})
        return Claim(records, answer=error_result(error, job_id).to_json())
    if record.final:
        log.info("job answered from its record", extra={"request_id": request_id})
        return Claim(records, answer=record.outcome)
    return Claim(records, request_id)
