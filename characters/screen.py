"""What a person sees: bars and tables on a terminal, plain lines in a pipe, JSON when asked."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from characters.client import Job


class Screen:
    """The terminal; results go to stdout, everything else to stderr."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json = json_lines
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def characters(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Every character as a line."""
        rows = [(c["character_id"], c["name"], c["trigger"], c["updated_at"]) for c in lines]
        self._table(("id", "name", "trigger", "changed"), rows, lines)

    def character(self, document: Mapping[str, Any]) -> None:
        """A character's versions, the active one marked."""
        active = (document["character"].get("active") or {}).get("id")
        rows = [
            ("*" if v["id"] == active else "", v["id"], v["trigger"], v["created_at"])
            for v in document["versions"]
        ]
        self._table(("", "version", "trigger", "made"), rows, [document])

    def jobs(self, jobs: Sequence[Job]) -> None:
        """Jobs as lines."""
        rows = [(job.id, job.task, job.state, job.created_at) for job in jobs]
        self._table(("id", "task", "state", "accepted"), rows, [asdict(job) for job in jobs])

    @contextlib.contextmanager
    def uploading(self, count: int) -> Iterator[Callable[[Path], None]]:
        """A bar over files."""
        with self._bar() as bar:
            line = bar.add_task("uploading", total=count)
            yield lambda path: bar.update(line, advance=1, description=escape(path.name))

    @contextlib.contextmanager
    def following(self, job: Job) -> Iterator[Callable[[Job], None]]:
        """A bar over a job's percent, with its stage; lines where there is no terminal."""
        said = ""
        with self._bar() as bar:
            line = bar.add_task(job.state, total=100)

            def show(current: Job) -> None:
                nonlocal said
                stage = str(current.progress.get("stage", current.state))
                percent = 100 if current.state == "completed" else current.progress.get("percent")
                words = f"{stage}: {current.note}" if current.note else stage
                bar.update(line, completed=percent, description=escape(words))
                if words != said and not self._err.is_terminal and not self._json:
                    self._err.print(escape(words))
                said = words

            yield show

    def done(self, job: Job, paths: Sequence[Path]) -> None:
        """What a job made, and where it was put."""
        if self._json:
            self._line({**asdict(job), "files": [str(path) for path in paths]})
            return
        for path in paths:
            self._out.print(escape(str(path)))
        if not paths:
            self._out.print(f"{job.id} {job.state}")

    def failed(self, sentence: str, code: str) -> None:
        """Why nothing came of it."""
        if self._json:
            sys.stderr.write(json.dumps({"error": sentence, "code": code}) + "\n")
        else:
            self._err.print(escape(sentence))

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=self._err,
            disable=self._json or not self._err.is_terminal,
        )

    def _table(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        documents: Sequence[Mapping[str, Any]],
    ) -> None:
        if self._json:
            for document in documents:
                self._line(document)
        elif self._out.is_terminal:
            table = Table(*titles)
            for row in rows:
                table.add_row(*map(escape, map(str, row)))
            self._out.print(table)
        else:
            for row in rows:
                sys.stdout.write("\t".join(map(str, row)).replace("\x1b", "?") + "\n")

    def _line(self, document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
