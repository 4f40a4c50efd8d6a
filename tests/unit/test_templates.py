"""Path templates, as google/api/http.proto has them and as other gateways' tests take them."""

from __future__ import annotations

import pytest

from poste.rpc.http_rules.templates import BadPathError, BadTemplateError, parse


def shown(text: str) -> tuple[str, str]:
    """What a template is, spelt: its segments and its verb."""
    template = parse(text)
    return "/".join(one if isinstance(one, str) else one[0] for one in template.segments), template.verb


@pytest.mark.parametrize(
    ("text", "segments", "verb"),
    [
        ("/", "", ""),
        ("/shelves/{shelf}/books/{book}", "shelves/*/books/*", ""),
        ("/shelves/**", "shelves/**", ""),
        ("/**", "**", ""),
        ("/a:foo", "a:foo", ""),
        ("/a/b/c:foo", "a/b/c:foo", ""),
        ("/*/a/**", "*/a/**", ""),
        ("/a/{a.b.c}", "a/*", ""),
        ("/a/{b=c/**/d}/e:verb", "a/c/**/d/e", ":verb"),
        ("/*:verb", "*", ":verb"),
        ("/{x.y.z=*/*}:verb", "*/*", ":verb"),
        ("/{x=**}:myverb", "**", ":myverb"),
        ("/v1/{uuid}:custom:custom", "v1/*", ":custom:custom"),
        ("/v1/a%2Fb%20c", "v1/a/b c", ""),
    ],
)
def test_templates_are_read(text, segments, verb):
    """Else a route is at another path than its author says."""
    assert shown(text) == (segments, verb)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "//",
            "/{}",
            "/a/",
            "/a//b",
            ":verb",
            "/:verb",
            "/a/:verb",
            ":",
            "/:",
            "/*:",
            "/**:",
            "/{var}:",
            "/a/b/:",
        ),
        *("/a/{", "/a/{var", "/a/{var.", "/a/{x=var:verb}", "a", "{x}", "{x=/a}", "a/b", "a/{x}/b", "/a/{var=/b}"),
        *("/{var=a/{nested=b}}", "/a{x}", "/{x}a", "/a{x}b", "/{x}a{y}", "/a/b{x}c/s", "/a/*x", "/a/x*", "/a/b?c"),
        *("/a/**/*", "/a/**/foo/*", "/a/**/**", "/a/**/foo/**", "/a{x=b/**}/{y=*}", "/{x=**}/{y}", "/{x}/{x}"),
        *("/a%2", "/a%zz", "/a%ff", "/a b", "/" + "a" * 1000, "/a" * 65, "/{x}:a:b:c:d:e"),
    ],
)
def test_what_is_no_template_is_refused(text):
    """Else a route is served at paths that its author did not write."""
    with pytest.raises(BadTemplateError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "path", "captured"),
    [
        ("/a/{x}/c/d/e", "a/book/c/d/e", ["book"]),
        ("/{x=a/*}/b/{y=*}/c", "a/hello/b/world/c", ["a/hello", "world"]),
        ("/a/{x=b/*}/{y=d/**}", "a/b/zoo/d/animal/tiger", ["b/zoo", "d/animal/tiger"]),
        ("/alpha/{x=*}/beta/{y=**}/gamma", "alpha/dog/beta/eat/bones/gamma", ["dog", "eat/bones"]),
        ("/{x=**}/a/b", "foo/bar/a/b", ["foo/bar"]),
        ("/a/{x=b/*/**/y/z}/foo", "a/b/foo/bar/baz/y/z/foo", ["b/foo/bar/baz/y/z"]),
        ("/a/{x=**}", "a", [""]),
        ("/a/{x=**}/{y=c}", "a/1/2/c", ["1/2", "c"]),
        # One segment is decoded, its slashes too; of several a slash stays what it was.
        ("/a/{x}/c", "a/p%20q%2Fr+/c", ["p q/r+"]),
        ("/a/{x=p/*/q/*}/c", "a/p/foo%20foo/q/bar%2Fbar/c", ["p/foo foo/q/bar%2Fbar"]),
        ("/a/{x=**}/c", "a/p/foo%20foo/q/bar%2fbar+/c", ["p/foo foo/q/bar%2fbar+"]),
        ("/{x=**}", "%21%23%24%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D", ["!#$&'()*+,%2F:;=?@[]"]),
        ("/{x}", "%e4%BD%a0", ["你"]),
    ],
)
def test_what_a_path_says_is_captured(text, path, captured):
    """Else a handler gets another name than its client wrote."""
    assert parse(text).captured(path.split("/")) == captured


@pytest.mark.parametrize("segment", ["%", "%2", "%zz", "%ff", "a%"])
def test_a_broken_encoding_is_no_value(segment):
    """Else a handler gets what its client did not send, or a string that is not Unicode."""
    for text in ("/{x}", "/{x=**}"):
        with pytest.raises(BadPathError):
            parse(text).captured([segment])
