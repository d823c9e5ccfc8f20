"""Open a sandbox: start it, test that nothing can break out of it, and refuse it otherwise."""

from shoestring.errors import MissingDependencyError
from shoestring.sandbox.process import WAY_OUT, Sandbox
from shoestring.sandbox.selftest import weaknesses


def open_sandbox() -> Sandbox:
    """A sandbox that has passed its self-test; takes half a second.

    Raises MissingDependencyError that names what is missing where it is not a boundary.
    """
    sandbox = Sandbox()
    try:
        problems = weaknesses(sandbox)
    except BaseException:
        sandbox.close()
        raise
    if problems:
        sandbox.close()
        raise MissingDependencyError(f"the sandbox is not a boundary here: {'; '.join(problems)}; {WAY_OUT}")
    return sandbox
