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
    """A workflow folder that cannot be used: said at start, with the folder's name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Workflow {name!r}: {problem}.")


class UnboundRole(WorkflowError):
    """The job sets a field that the workflow binds to no node input."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, workflow: str, role: str) -> None:
        super().__init__(f"{role}: workflow {workflow!r} has no such input.", field=role)


class InvalidParam(WorkflowError):
    """A value of `params`, or of a role, outside what the workflow declares."""

    code = ErrorCode.INVALID_INPUT

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}.", field=field)
