"""Works with a client that was generated from our description: python3 client.py SERVER TOKEN.

Whatever it reads is typed: an answer that is not as described fails in the generated code. Prints how many it read.
"""

import sys
import time
from http import HTTPStatus

from hub.api.audit import list_audit
from hub.api.domains import (
    batch_domains,
    change_domain,
    delete_domain,
    get_domain,
    insert_domain,
    list_domains,
    replace_domain,
)
from hub.api.fragments import delete_fragment, get_fragment, list_fragments, put_fragment
from hub.api.history import (
    deploy_all,
    diff_revisions,
    get_revision,
    list_revisions,
    list_withheld,
    pin,
    rollback,
    unpin,
)
from hub.api.routes import list_routes, list_surface, match
from hub.api.tokens import insert_token, list_tokens, revoke_token
from hub.client import AuthenticatedClient
from hub.models import (
    AccessTier,
    ChangeState,
    CreateItem,
    CreateItemOp,
    NewDomain,
    NewFragment,
    NewToken,
    Problem,
    Role,
    TlsMode,
)

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], raise_on_unexpected_status=True)
read = 0


def ask(operation, *arguments, status=HTTPStatus.OK, **options):
    """The typed answer of an operation, which must have this status."""
    global read
    answer = operation.sync_detailed(*arguments, client=client, **options)
    assert answer.status_code == status, (operation.__name__, answer.status_code, answer.content)
    assert answer.parsed is not None, (operation.__name__, answer.content)
    read += 1
    return answer.parsed


def new(name, **fields):
    return NewDomain(domain=name, tls_mode=TlsMode.DEFAULT, backend_host="10.9.0.1", backend_port=8000, **fields)


# A dry run tells what would be, and nothing is there after it.
tried = ask(insert_domain, body=new("a.client.test"), dry_run=True)
assert tried.change.state == ChangeState.DRY_RUN and tried.change.impact.on == ["a.client.test"], tried
assert ask(list_domains) == []

# Made, read, listed.
made = ask(insert_domain, body=new("a.client.test", notes="by a client", priority=7), status=HTTPStatus.CREATED, x_change_reason="as asked")
assert ask(get_domain, made.id).notes == "by a client"
assert [row.id for row in ask(list_domains, q="client")] == [made.id]

# A merge patch: null takes a field away, what is left out stays.
patch = NewDomain(notes=None, access_tier=AccessTier.INTERNAL)
changed = ask(change_domain, made.id, body=patch, if_match=f'"{made.version}"')
assert (changed.notes, changed.access_tier, changed.priority) == (None, AccessTier.INTERNAL, 7), changed
assert changed.version > made.version

# Refusals are typed, and teach.
refused = ask(change_domain, made.id, body=patch, if_match=f'"{made.version}"', status=HTTPStatus.PRECONDITION_FAILED)
assert isinstance(refused, Problem) and refused.type_.startswith("urn:charliehub:problem:"), refused
refused = ask(insert_domain, body=new("b.client.test", path_prefix="no"), status=HTTPStatus.UNPROCESSABLE_ENTITY)
assert isinstance(refused, Problem) and refused.field == "path_prefix" and refused.remedy, refused
refused = ask(insert_domain, body=new("a.client.test"), status=HTTPStatus.CONFLICT)
assert isinstance(refused, Problem) and refused.detail, refused

# Replaced: what is not given has its default again.
assert ask(replace_domain, made.id, body=new("a.client.test")).priority is None
items = [CreateItem(op=CreateItemOp.CREATE, domain=new(f"{n}.batch.test")) for n in "ab"]
assert len(ask(batch_domains, body=items).items) == 2

# Fragments, and what all of it comes to.
fragment = NewFragment.from_dict({"body": {"addPrefix": {"prefix": "/v1"}}})
ask(put_fragment, "http.middleware", "v1", body=fragment, status=HTTPStatus.CREATED)
assert ask(get_fragment, "http.middleware", "v1").name == "v1"
assert "v1" in [one.name for one in ask(list_fragments)]
assert "a.client.test" in [one.name for one in ask(list_routes)]
assert "a.client.test" in [one.name for one in ask(list_surface)]
assert ask(match, url_query="https://a.client.test/", client_ip="10.44.0.7").answer.router == "a.client.test"
ask(delete_fragment, "http.middleware", "v1")

# History.
newest = ask(list_revisions)[0]
assert ask(get_revision, newest.revision).revision == newest.revision
ask(diff_revisions, made.version, newest.revision)
deadline = time.monotonic() + 10
while pin.sync_detailed(newest.revision, client=client).status_code == HTTPStatus.CONFLICT:
    assert time.monotonic() < deadline, "a config is kept soon after it is served"
    time.sleep(0.05)
assert ask(pin, newest.revision).pinned
ask(unpin, newest.revision)
assert ask(rollback, changed.version, dry_run=True)
assert ask(list_withheld) == []
assert ask(deploy_all)

# Tokens and the audit.
token = ask(insert_token, body=NewToken(name="short-lived", role=Role.READER), status=HTTPStatus.CREATED)
assert token.token and token.id in [one.id for one in ask(list_tokens)]
ask(revoke_token, token.id)
assert ask(list_audit)

# And away.
gone = ask(delete_domain, made.id)
assert gone.domain == "a.client.test" and gone.change.revision, gone
refused = ask(get_domain, made.id, status=HTTPStatus.NOT_FOUND)
assert isinstance(refused, Problem), refused
client.get_httpx_client().close()
print(f"{read} typed answers")
