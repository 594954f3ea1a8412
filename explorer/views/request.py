"""The page of one request: who, when, what, how much and where settled, and the proof of it."""

import json
import shlex
from uuid import UUID

import streamlit as st

from explorer.formats import amount, count, second
from explorer.pieces import (
    MARKS,
    Html,
    Mark,
    first_line,
    heading,
    join,
    mark,
    note,
    party,
    source,
    table,
    tag,
)
from explorer.proof import Proof, prove
from explorer.reading import Listed
from explorer.site import Site
from explorer.views import auction, course, lists, missing
from pinaivu.keys import checksum
from pinaivu.messages import Receipt
from pinaivu.verify import Outcome, Report, Step


def show(site: Site, query: dict[str, str]) -> None:
    """The page, or what to do where the id is unknown or shared."""
    try:
        wanted = UUID(query["request"])
    except ValueError:
        missing.not_an_id(query["request"])
        return
    found = site.reader.request(wanted.bytes)
    if gateway := query.get("gateway"):
        found = [listed for listed in found if checksum(listed.row.gateway) == gateway]
    if not found:
        missing.request(site, wanted)
    elif len(found) > 1:
        _choose(site, found)
    else:
        _show(site, found[0])


def _choose(site: Site, found: list[Listed]) -> None:
    st.html(note("Several gateways used this id, each for a request of its own. Choose one:"))
    lists.receipts(site, found, {}, paged=False)


def _show(site: Site, listed: Listed) -> None:
    signed, leaf = site.reader.receipt(listed.row.position)
    receipt = signed.message
    wanted = UUID(bytes=receipt.job_id)
    with st.spinner("Verifying …", show_time=False):
        proof = prove(site.log, site.verifier(), receipt.gateway, wanted, leaf.digest)
    st.html(first_line(_facts(site, listed, receipt, proof)))
    st.html(
        tag(
            "div",
            tag("small", "Request"),
            str(wanted),
            class_="pnv-title",
        )
    )
    st.html(_verdict(listed, proof))
    _steps(proof)
    _alone(site, proof, wanted)
    auction.show(site, receipt, proof)
    course.show(site, listed, receipt, proof)
    _raw(signed.to_json(), proof)


def _facts(
    site: Site, listed: Listed, receipt: Receipt, proof: Proof
) -> list[tuple[str, str, Mark, str, str]]:
    row = listed.row
    nodes = {segment.node for segment in receipt.segments if segment.rank}
    who = join(party("node", row.node), f" +{len(nodes) - 1}" if len(nodes) > 1 else "")
    tokens = f"{count(row.prompt_tokens)} in · {count(row.output_tokens)} out"
    facts = [
        ("Who served it", who if nodes else "nobody", "V6"),
        ("When", second(receipt.received_ms), "V2"),
        ("Model", receipt.model, "V13"),
        ("Tokens", tokens, "V9"),
        ("Cost", f"{amount(receipt.total)} {site.symbol}", "V8"),
        ("Settled in", lists.settled_in(listed), "V10"),
    ]
    found = []
    for name, value, step_id in facts:
        step = proof.step(step_id)
        found.append((name, value, MARKS[step.outcome], step_id, step.evidence))
    attested = proof.step("V1")
    return [*found, ("Attestation", "", MARKS[attested.outcome], "V1", attested.evidence)]


def _verdict(listed: Listed, proof: Proof) -> Html:
    report = proof.report
    if proof.foreign:
        return note(mark(Mark.BAD), f" Refuted: {proof.problem}.", kind="bad")
    if report is None:
        return note(
            mark(Mark.LACKS),
            f" Not verified now: {proof.problem}. What this page shows comes from the explorer's "
            "own index, which checked the receipt's signature, place in the log and counters.",
            kind="lacks",
        )
    shown = [_verdict_note(report)]
    if listed.row.trouble:
        shown.append(note(mark(Mark.BAD), f" In the log: {listed.row.trouble}", kind="bad"))
    return join(*shown)


def _verdict_note(report: Report) -> Html:
    if report.failed:
        return note(mark(Mark.BAD), f" {report.verdict}", kind="bad")
    if report.unmet:
        return note(mark(Mark.LACKS), f" {report.verdict}", kind="lacks")
    if report.simulated:
        text = (
            f" {report.verdict}. All of it rests on a simulated attestation: on a real network V1 "
            "shows which code holds the key, here nothing does."
        )
        return note(mark(Mark.SIMULATED), text, kind="sim")
    return note(mark(Mark.OK), f" {report.verdict}", kind="ok")


def _steps(proof: Proof) -> None:
    if proof.report is None:
        return
    cells = [
        [
            tag("b", step.id),
            mark(MARKS[step.outcome], step.evidence),
            step.claim,
            _evidence(step),
        ]
        for step in proof.report.steps
    ]
    st.html(heading("Verification, step by step"))
    st.html(table(["Step", "", "Claim", "Evidence"], cells))
    st.html(
        source(
            "every step was run here, now, over the log's bundle and the chain's state. ",
            "✓ checked, ✗ refuted, ? lacking. V4, V5 and V9 need the request's own copies, which "
            "only its caller and gateway have",
        )
    )
    with st.expander("Values behind the steps"):
        st.json({step.id: step.facts for step in proof.report.steps if step.facts})


def _evidence(step: Step) -> str:
    """The evidence; outcomes that a mark alone would not tell apart stand before it."""
    said = {Outcome.SIMULATED: "SIMULATED: ", Outcome.NOT_AUDITED: "not audited: "}
    return said.get(step.outcome, "") + step.evidence


def _alone(site: Site, proof: Proof, wanted: UUID) -> None:
    """The bundle, and the command that runs the same steps without this page."""
    st.html(heading("Check it yourself"))
    config = site.config
    words = ["pinaivu", "verify", str(wanted), "--policy", config.policy, "--public"]
    words += ["--log-url", config.log_url, "--rpc", config.rpc, "--deployment", config.deployment]
    st.code(shlex.join(words), language="sh", wrap_lines=True)
    if proof.raw:
        st.download_button(
            f"Download the bundle ({count(len(proof.raw))} bytes)",
            proof.raw,
            file_name=f"{wanted}.pnv",
            mime="application/octet-stream",
        )
    st.html(
        source(
            "the same code, run by you: give the bundle's file name instead of the id to check "
            "the file. With your API key (--api-key) instead of --public, also V4, V5 and V9"
        )
    )


def _raw(receipt: dict[str, object], proof: Proof) -> None:
    st.html(heading("Raw"))
    with st.expander("The signed receipt (JSON)"):
        st.code(json.dumps(receipt, indent=2), language="json")
    if proof.document:
        with st.expander("The whole bundle (JSON)"):
            st.json(proof.document, expanded=1)
