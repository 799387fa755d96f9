"""The DNS codec against an independent one, and against nonsense."""

import contextlib

import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns import message

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
ADDRESS = st.ip_addresses(v=4)


@given(NAME, st.sampled_from(["A", "AAAA", "PTR", "SRV", "ANY"]), st.integers(0, 65535))
def test_a_query_reads_as_the_other_implementation_wrote_it(name, kind, ident):
    query = dns.message.make_query(name, kind, id=ident)

    found = message.parse_query(query.to_wire())

    assert (found.id, found.name, found.type) == (ident, name, query.question[0].rdtype)
    assert found.flags & message.RD


@given(st.integers(0, 65535))
def test_edns_size_is_kept_within_bounds(size):
    query = dns.message.make_query("web", "A", use_edns=0, payload=size)

    found = message.parse_query(query.to_wire())

    assert found.edns
    assert found.size == max(512, min(1232, size))


@given(NAME, st.lists(ADDRESS, max_size=80), st.sampled_from([None, 512, 1232]), st.booleans())
def test_an_answer_reads_back_and_fits(name, addresses, limit, edns):
    wire = dns.message.make_query(name, "A", use_edns=0 if edns else False).to_wire()
    query = message.parse_query(wire)
    records = [(message.A, 5, address.packed) for address in addresses]

    out = message.answer(query, records, limit=limit)

    assert limit is None or len(out) <= limit
    parsed = dns.message.from_wire(out)
    found = [str(item) for rrset in parsed.answer for item in rrset]
    assert len(found) == len(set(found))
    cut = bool(parsed.flags & dns.flags.TC)
    assert set(found) <= {str(address) for address in addresses}
    assert cut or set(found) == {str(address) for address in addresses}
    assert parsed.edns == (0 if edns else -1)
    if not addresses:
        assert parsed.authority[0].ttl == 1


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data):
    try:
        query = message.parse_query(data)
    except message.Malformed as error:
        answerable, query = error.answerable, None
    else:
        answerable = True

    if query is not None:
        assert message.failure(query, message.SERVFAIL)
    elif answerable:
        assert message.refusal(data, message.FORMERR)


@given(st.binary(max_size=60), NAME)
def test_flipped_bytes_of_a_real_query_do_no_harm(noise, name):
    wire = bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire())
    for place, byte in enumerate(noise):
        wire[(place * 7 + byte) % len(wire)] ^= byte
    with contextlib.suppress(message.Malformed):
        message.parse_query(bytes(wire))


@given(NAME)
def test_names_survive_writing(name):
    assert dns.name.from_wire(message.write_name(name), 0)[0].to_text() == name + "."


@pytest.mark.parametrize("bad", ["a" * 64, "a..b"])
def test_a_name_that_cannot_be_written_is_refused(bad):
    with pytest.raises(message.Malformed):
        message.write_name(bad)


def test_a_dot_inside_a_label_is_not_a_separator():
    wire = bytearray(dns.message.make_query("tasks.web", "A").to_wire())
    wire[12] = 9  # one label of nine bytes, "tasks" + 0x03 + "web"
    wire[18] = ord(".")

    assert message.parse_query(bytes(wire)).name != "tasks.web"


def test_errors_repeat_the_question():
    query = message.parse_query(dns.message.make_query("web", "A").to_wire())

    parsed = dns.message.from_wire(message.failure(query, message.SERVFAIL))

    assert parsed.rcode() == dns.rcode.SERVFAIL
    assert str(parsed.question[0].name) == "web."


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.16.210.10.in-addr.arpa", "10.210.16.2"),
        ("300.16.210.10.in-addr.arpa", None),
        ("16.210.10.in-addr.arpa", None),
        ("x.16.210.10.in-addr.arpa", None),
        ("2.16.210.10.example.com", None),
    ],
)
def test_reverse_names(name, address):
    assert message.reverse_address(name) == address


@given(NAME, st.integers(0, 65535), st.integers(0, 65535))
def test_a_reply_must_have_our_id_and_question(name, ident, other):
    query = dns.message.make_query(name, "A", id=ident)
    question = message.parse_query(query.to_wire()).question
    reply = dns.message.make_response(query).to_wire()

    assert message.matches(reply, ident, question)
    assert message.matches(reply, other, question) == (other == ident)
    assert not message.matches(reply, ident, b"\x03foo\x00\x00\x01\x00\x01")
    assert not message.matches(query.to_wire(), ident, question)
