"""The exit codes of every verb: success, failure and still waiting differ, so that a program needs to read nothing."""

from __future__ import annotations

from typing import Final

OK: Final = 0
#: The gateway answered with a problem, or a task ended otherwise than well.
FAILURE: Final = 1
#: Wrong usage (click's own code for it), or nothing could be done: no answer, a part can't start.
NO_START: Final = 2
#: The call is kept and has not ended.
WAITING: Final = 3
#: Ended by Ctrl-C, as a shell has it.
INTERRUPTED: Final = 130
