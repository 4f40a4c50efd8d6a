"""The kinds of problems: one for each `type` under `/problems/`."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from poste.domain import sizes
from poste.domain.codes import Code

_ROOT: Final = "/problems/"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem.

    Attributes:
        name: Its name in the path of its page.
        status: The HTTP status that it is answered with.
        code: The google.rpc.Code that it stands for.
        title: What it is, in a few words.
        about: What its page says.
    """

    name: str
    status: int
    code: Code
    title: str
    about: str

    @property
    def path(self) -> str:
        """The path of its page, which is its `type`."""
        return _ROOT + self.name

    @property
    def outcome(self) -> str:
        """What the access log and the metrics call it: by its code if it is that code's own kind, else by its name."""
        return self.code.name if OF_CODE.get(self.code) is self else self.name


INVALID_REQUEST: Final = ProblemType(
    "invalid-request",
    HTTPStatus.BAD_REQUEST,
    Code.INVALID_ARGUMENT,
    "The request is not valid",
    "The body is not the JSON of the method's request, or a header has a value that it can't have. "
    "`errors` names each field and header, and says what is wrong with it. Nothing was done.",
)
NO_ROUTE: Final = ProblemType(
    "no-such-route",
    HTTPStatus.NOT_FOUND,
    Code.NOT_FOUND,
    "There is nothing at this path",
    "No catalogued service has this route. GET /v1/services lists those there are.",
)
NO_TASK: Final = ProblemType(
    "no-such-task",
    HTTPStatus.NOT_FOUND,
    Code.NOT_FOUND,
    "There never was such a task",
    "This Poste never issued that task id, or the id was altered on its way.",
)
NO_QUEUE: Final = ProblemType(
    "no-such-queue",
    HTTPStatus.NOT_FOUND,
    Code.NOT_FOUND,
    "There is no such queue",
    "No service of that name is catalogued, and none was. A queue is called as its service is.",
)
NO_SERVICE: Final = ProblemType(
    "no-such-service",
    HTTPStatus.NOT_FOUND,
    Code.NOT_FOUND,
    "There is no such service",
    "No service of that name is in the catalogue.",
)
WRONG_VERB: Final = ProblemType(
    "wrong-verb",
    HTTPStatus.METHOD_NOT_ALLOWED,
    Code.UNIMPLEMENTED,
    "The path does not take this verb",
    "The header `Allow` names the verbs that it takes.",
)
TOO_LARGE: Final = ProblemType(
    "body-too-large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.INVALID_ARGUMENT,
    "The body is too large",
    "The request's body is larger than this gateway takes. Nothing was done.",
)
URI_TOO_LONG: Final = ProblemType(
    "uri-too-long",
    HTTPStatus.REQUEST_URI_TOO_LONG,
    Code.INVALID_ARGUMENT,
    "The path is too long",
    "The request's path with its query is longer than this gateway takes. Nothing was done.",
)
HEAD_TOO_LARGE: Final = ProblemType(
    "head-too-large",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    Code.INVALID_ARGUMENT,
    "The headers are too large",
    "A header, or all headers together, are larger than this gateway takes. Nothing was done.",
)
UNKNOWN_VERB: Final = ProblemType(
    "unknown-verb",
    HTTPStatus.NOT_IMPLEMENTED,
    Code.UNIMPLEMENTED,
    "There is no such verb",
    "The request's method is none that HTTP has. Nothing was done.",
)
REQUEST_TIMEOUT: Final = ProblemType(
    "request-timeout",
    HTTPStatus.REQUEST_TIMEOUT,
    Code.DEADLINE_EXCEEDED,
    "The body did not come in time",
    "The request's head came, but not the whole of its body within the time that this gateway waits for it. Nothing "
    "was accepted, and the connection is closed: send the request again, on a new one.",
)
NOT_JSON: Final = ProblemType(
    "not-json",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID_ARGUMENT,
    "The body must be application/json",
    "Calls are made with the header `Content-Type: application/json`, in UTF-8. Nothing was done.",
)
NOT_READY: Final = ProblemType(
    "not-ready",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "The gateway does not know its services yet",
    "The gateway has just started and waits for its catalogue. Nothing was accepted: try again.",
)
SERVICE_AWAY: Final = ProblemType(
    "service-away",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "The service is away",
    "The service can't answer now, and this call is not kept for it: the client said `Prefer: no-queue`, or the "
    "catalogue says so of the method, or no process with the worker library ever registered the service, and no "
    "courier is there, so that no consumer would take the call from a queue. Nothing was accepted: try again later.",
)
NOT_ACCEPTED: Final = ProblemType(
    "not-accepted",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "The call can't be kept now",
    "The call could not be kept safely, so it was not accepted, and will not be run. Try again.",
)
QUEUE_FULL: Final = ProblemType(
    "queue-full",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    "The service's queue is full",
    "As many calls wait for the service as its queue may hold. Nothing was accepted: try again later.",
)
BUDGET_SPENT: Final = ProblemType(
    "queue-budget-spent",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    "The service's queue holds as much as it may",
    "All that the queue holds takes as much memory as it may: calls that wait, those that Poste gave up, and results, "
    "each kept for as long as its client asked (Poste-Result-TTL). Nothing was accepted: try again when results' times "
    "to live are over, or an operator has made room (`poste purge`).",
)
LOOKUP_AWAY: Final = ProblemType(
    "lookup-away",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "Tasks and queues can't be looked up now",
    "The place where tasks are kept can't be reached. They are safe; try again.",
)
OUTCOME_UNKNOWN: Final = ProblemType(
    "outcome-unknown",
    HTTPStatus.BAD_GATEWAY,
    Code.UNKNOWN,
    "The call may or may not have run",
    "The call was sent to its service, and no answer came, or one that leaves open what was done (UNAVAILABLE, "
    "DEADLINE_EXCEEDED). It may have run, and its method is not declared idempotent, so Poste did not run it again. "
    "Find out what became of it before you repeat it.",
)
ACCEPTANCE_UNKNOWN: Final = ProblemType(
    "acceptance-unknown",
    HTTPStatus.BAD_GATEWAY,
    Code.UNKNOWN,
    "The call may or may not have been accepted",
    "The call was to be kept, and the answer whether it is was lost. The header `Location` has the path of its "
    "task. Read it before you repeat the call: 200 is the task, 404 `not-kept` means that it was not accepted, and "
    "this problem that it is not decided yet, which takes half a minute at most.",
)
KEY_IN_USE: Final = ProblemType(
    "idempotency-key-in-use",
    HTTPStatus.CONFLICT,
    Code.ABORTED,
    "The first call with this key still runs",
    "A call with this Idempotency-Key was accepted before, and its handler runs now. The header `Location` has the "
    "path of its task. This request started nothing: repeat it later, and it is answered as the first one was, or read "
    "the task.",
)
KEY_REUSED: Final = ProblemType(
    "idempotency-key-reused",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.INVALID_ARGUMENT,
    "The key is another call's",
    "A call of this method with this Idempotency-Key and another request was accepted before. A key names one call: "
    "give this one a key of its own. Nothing was accepted.",
)
NOT_KEPT: Final = ProblemType(
    "not-kept",
    HTTPStatus.NOT_FOUND,
    Code.NOT_FOUND,
    "The call was not accepted",
    "It was not known at first whether the call was accepted, and now it is: it was not. It did not run and will not; "
    "it can be repeated.",
)
RECORD_LOST: Final = ProblemType(
    "record-lost",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.DATA_LOSS,
    "The task's record is lost",
    "The task was accepted and must still be on record, and it is not. Report it to the operator.",
)
GONE: Final = ProblemType(
    "gone",
    HTTPStatus.GONE,
    Code.NOT_FOUND,
    "The task is no longer kept",
    "The task id was issued, and the time for which its result is kept is over, or an operator has dropped it to make "
    "room. (If it was not known whether the call "
    "was accepted, it may not have been.)",
)
TASK_ENDED: Final = ProblemType(
    "task-ended",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "The task has ended",
    "A task that has ended can't be cancelled.",
)
SCHEMA_CHANGED: Final = ProblemType(
    "schema-changed",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "The method's schema changed",
    "The call was kept, and when its service came back the method had another schema, by which the request may say "
    "something else than its client meant. It was not run: it is DEAD, reason `schema-changed`, and held aside for an "
    "operator. `detail` says what differs. A replay runs it once the schema is compatible again; `asIs=true` runs it "
    "whatever the schema is.",
)
NOT_DEAD: Final = ProblemType(
    "not-dead",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "The task's state does not allow it",
    "Only a task that is DEAD or FAILED can be replayed, and only one that is DEAD purged.",
)
CALLBACK_FORBIDDEN: Final = ProblemType(
    "callback-forbidden",
    HTTPStatus.FORBIDDEN,
    Code.PERMISSION_DENIED,
    "The URL may not be told",
    "`Poste-Callback` names a URL of an origin that the gateway's operator has not named (POSTE_CALLBACK_ORIGINS); "
    "unless some are named, it makes no callbacks at all. Nothing was done.",
)
NOT_UNDELIVERED: Final = ProblemType(
    "not-undelivered",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "There is nothing to be told again",
    "Only what could not be told to its client's URL within a day is told again: this task's end was told, is still "
    "tried, or nobody wanted to be told of it.",
)
CALLS_WAITING: Final = ProblemType(
    "calls-waiting",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "Calls wait for the service",
    "A service is not forgotten while its calls wait, unless that is asked for: `?evenWithWaiting=true`, or "
    "`poste forget --even-with-waiting`. They would stay in its queue: they run if the service registers again in "
    "time, else they expire.",
)
TARGET_UNREAD: Final = ProblemType(
    "target-unread",
    HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION,
    "What the server serves can't be read",
    "A server is registered by what it says of itself, by gRPC server reflection (v1 or v1alpha), to the middleware, "
    "which must reach it. Give it reflection, or name its descriptors in the middleware's catalogue file. Nothing was "
    "registered.",
)
OPERATORS_ONLY: Final = ProblemType(
    "operators-only",
    HTTPStatus.FORBIDDEN,
    Code.PERMISSION_DENIED,
    "This is for operators",
    "Pausing queues and handling what died is for operators, who have the gateway's token; this gateway was given none "
    "(POSTE_OPERATOR_TOKEN_FILE), so no client is one, wherever it comes from. Nothing was done.",
)
CREDENTIALS_NEEDED: Final = ProblemType(
    "credentials-needed",
    HTTPStatus.UNAUTHORIZED,
    Code.UNAUTHENTICATED,
    "The key or token is missing or wrong",
    "Send the header `Authorization: Bearer` and the key that you were given, or a token of the issuer that this "
    "gateway trusts; `detail` says what is wrong with a token. What operators do needs a key or a token of theirs, or "
    "the operators' token. Nothing was done.",
)
NOT_ALLOWED: Final = ProblemType(
    "not-allowed",
    HTTPStatus.FORBIDDEN,
    Code.PERMISSION_DENIED,
    "The key or token is not for this",
    "This gateway knows who you are; your key or token has not the role that this needs, or is not for this method. "
    "Nothing was done.",
)
ISSUER_AWAY: Final = ProblemType(
    "issuer-away",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "Whether the token is good can't be said now",
    "The token is signed with a key that this gateway does not know, and its issuer can't be asked for newer ones. "
    "Nothing was done: try again.",
)
MISDIRECTED: Final = ProblemType(
    "misdirected",
    HTTPStatus.MISDIRECTED_REQUEST,
    Code.PERMISSION_DENIED,
    "The gateway does not answer under this name",
    "The header `Host` names a host that is not this gateway's. One on loopback that needs no keys answers under "
    "`localhost`, names below it, and addresses of loopback alone, for a web page may have its own name lead there; "
    "POSTE_HOSTS gives it more. Nothing was done.",
)
CROSS_ORIGIN: Final = ProblemType(
    "cross-origin",
    HTTPStatus.FORBIDDEN,
    Code.PERMISSION_DENIED,
    "The request is of another origin's page",
    "The page's session is for the page alone: a request that shows it must be of this origin, and the browser must "
    "say so (`Sec-Fetch-Site`, or `Origin` with the same host and port as `Host`). A program shows its key instead, in "
    "the header `Authorization`. A gateway on loopback that needs no keys answers no pages but those of loopback, "
    "unless POSTE_CORS_ORIGINS names their origin. Nothing was done.",
)
RATE_LIMITED: Final = ProblemType(
    "rate-limited",
    HTTPStatus.TOO_MANY_REQUESTS,
    Code.RESOURCE_EXHAUSTED,
    "The key or token was used too often",
    "The header `RateLimit-Policy` says how many requests may be made with it in how many seconds, at each "
    "gateway. Try again after the seconds that the header `Retry-After` names. Nothing was done.",
)
TOO_MANY_ATTEMPTS: Final = ProblemType(
    "too-many-attempts",
    HTTPStatus.TOO_MANY_REQUESTS,
    Code.RESOURCE_EXHAUSTED,
    "Too many wrong keys come from this address",
    "Keys and tokens that this gateway does not know came from your address, thirty at once or more than one every two "
    "seconds. Try again after the seconds that the header `Retry-After` names; a right one is let in meanwhile. "
    "Nothing was done.",
)
QUOTA_EXCEEDED: Final = ProblemType(
    "quota-exceeded",
    HTTPStatus.TOO_MANY_REQUESTS,
    Code.RESOURCE_EXHAUSTED,
    "The client has as much in this queue as it may",
    "The call was to be kept, and the service's queue holds as many waiting calls, or bytes, for the client as it may "
    "have: calls that wait, those that Poste gave up, and results, each kept for as long as its client asked "
    "(Poste-Result-TTL). Nothing was accepted: try again when calls have ended, or results' times to live are over.",
)
TOO_MANY_WATCHERS: Final = ProblemType(
    "too-many-watchers",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    "Too many watch this gateway",
    "As many pages and terminals follow this gateway as it serves at once. Close some, or try again later.",
)
GATEWAY_BUSY: Final = ProblemType(
    "gateway-busy",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    "The gateway has all that it can take",
    "As much is on its way through this gateway as it has room for, from this client or from all of them. Nothing was "
    "accepted, unless the detail says otherwise: try again after the seconds that the header `Retry-After` names.",
)
UNREADABLE_ANSWER: Final = ProblemType(
    "unreadable-answer",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INTERNAL,
    "The service's answer can't be shown",
    "The service ran the call and answered, and its answer can't be written as JSON. `errors` names the field that "
    "can't, and says why. Do not repeat the call for that.",
)
PAYLOAD_TOO_LARGE: Final = ProblemType(
    "payload-too-large",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INTERNAL,
    "The service's answer is too large",
    f"The service ran the call, and answered with more than a message carries ({sizes.MAX_PAYLOAD} bytes as "
    "protobuf; a message of a stream: POSTE_MAX_STREAM_MESSAGE_BYTES of the gateway). It would be as large the next "
    "time: do not repeat the call, but ask for less. A queued call that was answered so is DEAD, reason "
    "`response-too-large`.",
)
NOT_CALLABLE: Final = ProblemType(
    "streams-requests",
    HTTPStatus.NOT_IMPLEMENTED,
    Code.UNIMPLEMENTED,
    "The method takes a stream of requests",
    "A client-streaming or bidirectional method is called by gRPC alone: an HTTP request has one message for it. "
    "Nothing was done. Methods that answer with a stream can be called.",
)
STREAM_CUT: Final = ProblemType(
    "stream-cut",
    HTTPStatus.SERVICE_UNAVAILABLE,
    Code.UNAVAILABLE,
    "The stream is not whole",
    "The stream was cut short: its service, or the connection to it, became unavailable, or the gateway stops. What "
    "came is good. A stream can't be resumed: call the method again, if it does no harm to run it twice.",
)
INTERNAL: Final = ProblemType(
    "internal",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INTERNAL,
    "The gateway failed",
    "Something went wrong that should not. The operator's log has it under the id of the header `X-Request-Id`.",
)

#: What a service may answer, by its code. HTTP statuses: the table of google/rpc/code.proto.
OF_CODE: Final[dict[Code, ProblemType]] = {
    code: ProblemType(
        f"status-{code.name.lower().replace('_', '-')}",
        status,
        code,
        title,
        f"The service answered with the status {code.name}: {title[0].lower()}{title[1:]}.",
    )
    for code, status, title in (
        (Code.CANCELLED, 499, "The call was cancelled"),
        (Code.UNKNOWN, 500, "The service failed"),
        (Code.INVALID_ARGUMENT, 400, "The service finds an argument invalid"),
        (Code.DEADLINE_EXCEEDED, 504, "The service did not finish in time"),
        (Code.NOT_FOUND, 404, "The service did not find what was asked for"),
        (Code.ALREADY_EXISTS, 409, "What was to be made exists already"),
        (Code.PERMISSION_DENIED, 403, "The caller is not allowed to do this"),
        (Code.RESOURCE_EXHAUSTED, 429, "A quota or another resource is used up"),
        (Code.FAILED_PRECONDITION, 400, "The system is not in the state that the call needs"),
        (Code.ABORTED, 409, "The call was aborted: another one was in its way"),
        (Code.OUT_OF_RANGE, 400, "An argument is out of range"),
        (Code.UNIMPLEMENTED, 501, "The service does not have this method"),
        (Code.INTERNAL, 500, "The service failed within"),
        (Code.UNAVAILABLE, 503, "The service is unavailable"),
        (Code.DATA_LOSS, 500, "The service lost data"),
        (Code.UNAUTHENTICATED, 401, "The caller is not authenticated"),
    )
}
#: Every kind by its name.
PROBLEM_TYPES: Final = {
    kind.name: kind
    for kind in (
        INVALID_REQUEST,
        NO_ROUTE,
        NO_TASK,
        NO_QUEUE,
        NO_SERVICE,
        WRONG_VERB,
        TOO_LARGE,
        URI_TOO_LONG,
        HEAD_TOO_LARGE,
        UNKNOWN_VERB,
        REQUEST_TIMEOUT,
        NOT_JSON,
        NOT_READY,
        SERVICE_AWAY,
        NOT_ACCEPTED,
        QUEUE_FULL,
        BUDGET_SPENT,
        LOOKUP_AWAY,
        OUTCOME_UNKNOWN,
        ACCEPTANCE_UNKNOWN,
        KEY_IN_USE,
        KEY_REUSED,
        NOT_KEPT,
        RECORD_LOST,
        GONE,
        TASK_ENDED,
        SCHEMA_CHANGED,
        NOT_DEAD,
        NOT_UNDELIVERED,
        CALLBACK_FORBIDDEN,
        CALLS_WAITING,
        TARGET_UNREAD,
        OPERATORS_ONLY,
        CREDENTIALS_NEEDED,
        NOT_ALLOWED,
        ISSUER_AWAY,
        MISDIRECTED,
        CROSS_ORIGIN,
        RATE_LIMITED,
        TOO_MANY_ATTEMPTS,
        QUOTA_EXCEEDED,
        TOO_MANY_WATCHERS,
        GATEWAY_BUSY,
        UNREADABLE_ANSWER,
        PAYLOAD_TOO_LARGE,
        NOT_CALLABLE,
        STREAM_CUT,
        INTERNAL,
        *OF_CODE.values(),
    )
}
