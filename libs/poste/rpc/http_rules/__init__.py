"""What `google.api.http` annotations mean: the routes that methods have besides their default one.

The comment on `HttpRule` in google/api/http.proto is the specification; docs/http-rules.md says where this takes more,
or less, than it says.
"""
