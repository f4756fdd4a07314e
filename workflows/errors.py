"""What can be wrong with a workflow, or with what a job asks of one."""

from errors import CodedError, ErrorCode


class WorkflowError(CodedError):
    """Base of this package's errors."""


class WorkflowNotFound(WorkflowError):
    """No folder of that name."""

    code = ErrorCode.WORKFLOW_NOT_FOUND

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"There is no workflow {name!r}; this worker has: {', '.join(known) or 'none'}.",
            field="workflow",
            details={"known": list(known)},
        )


class WorkflowInvalid(WorkflowError):
    """A workflow folder that cannot be used; the message has the first fault, `faults` all."""

    code = ErrorCode.WORKFLOW_REJECTED

    def __init__(self, name: str, *faults: str) -> None:
        self.faults = faults
        more = len(faults) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(
            f"Workflow {name!r}: {faults[0]}{rest}.",
            field="workflow",
            details={"workflow": name, "problems": list(faults)},
        )


class UnboundRole(WorkflowError):
    """The job sets a field that the workflow binds to no node input."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, workflow: str, role: str, known: tuple[str, ...] = ()) -> None:
        has = f" (it has: {', '.join(known)})" if known else ""
        super().__init__(f"{role}: workflow {workflow!r} has no such input{has}.", field=role)


class InvalidParam(WorkflowError):
    """A value of `params`, or of a role, outside what the workflow declares."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}.", field=field)
