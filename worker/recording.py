"""A job's record in the bucket: claimed before the job, finished after it, answered if it is final.

Only jobs that carry a `request_id` have one. It costs a GET and a PUT before the job and a GET and
a PUT after it.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from errors import CodedError
from lora_registry.job_records import JobRecords
from worker.results import error_result

log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def recorded(
    records: JobRecords, raw: object, job_id: str, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The answer of a job: what its record says already, or what `make` returns.

    Args:
        records: of the bucket.
        raw: the job's `input`; one without a usable `request_id` is made without a record.
        job_id: the platform's id of this job.
        make: serves the job; returns a result or an error, and never raises.
    """
    request_id = raw.get("request_id") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(request_id, str):
        return make()
    if not _REQUEST_ID.fullmatch(request_id):
        return make()  # the contract refuses it, with the sentence for it
    try:
        record = records.claim(request_id, job_id, str(raw.get("task"))[:64])
    except CodedError as error:
        # Without the claim another worker might make the same request: better none than two.
        log.warning("job not claimed", extra={"request_id": request_id, "reason": str(error)})
        return error_result(error, job_id).to_json()
    if record.final:
        log.info("job answered from its record", extra={"request_id": request_id})
        return record.outcome
    answer = make()
    if answer.get("code") == "cancelled":
        # Perhaps this worker is being stopped and RunPod gives the job to another one: whoever
        # cancelled it for good writes that into the record.
        return answer
    return _finished(records, request_id, answer)


def _finished(records: JobRecords, request_id: str, answer: dict[str, Any]) -> dict[str, Any]:
    try:
        record = records.finish(request_id, answer)
    except CodedError as error:
        # The answer still goes to RunPod, where a gateway finds it and writes the record.
        log.warning("record not written", extra={"request_id": request_id, "reason": str(error)})
        return answer
    written = record.error if "error" in answer else record.result
    kept = {name: value for name, value in answer.items() if name != "refresh_worker"}
    return answer if written == kept else record.outcome
