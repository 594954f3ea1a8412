"""The course of a request: its timeline, its segments and charges, and its settlement on chain."""

from collections.abc import Iterator
from typing import Final

import streamlit as st

from explorer.formats import CLEARING, amount, count, duration, moment, reason
from explorer.pieces import (
    Html,
    Mark,
    heading,
    join,
    link,
    mark,
    note,
    pairs,
    party,
    source,
    table,
    tag,
    transaction,
)
from explorer.proof import Proof
from explorer.reading import Listed, batch_message
from explorer.site import Site
from explorer.views.lists import anchor_mark
from pinaivu.codes import Clearing
from pinaivu.encoding import to_hex
from pinaivu.messages import Receipt
from pinaivu.settlement import unpack_rows

_Moment = tuple[str, int, str]
_LEGIBLE: Final = 0.14  # of the bar's width


def show(site: Site, listed: Listed, receipt: Receipt, proof: Proof) -> None:
    """Timeline, segments, settlement."""
    st.html(heading("Timeline"))
    st.html(join(_lane(receipt), _timeline(listed, receipt, proof)))
    st.html(heading("Segments and charges"))
    st.html(_segments(site, receipt))
    st.html(
        source(
            "the receipt, signed by the coordinator's epoch key. Counts: by the node's signed "
            "completion, by the gateway's signed delivery, and acknowledged by preimages (V8)"
        )
    )
    st.html(_people(site, receipt))
    st.html(heading("Settlement"))
    st.html(_settlement(site, listed, receipt))


def _lane(receipt: Receipt) -> Html:
    """The stretches of the job as a bar; their lengths are proportional."""
    points = [
        receipt.received_ms,
        receipt.awarded_ms,
        receipt.first_token_ms,
        receipt.finished_ms,
        receipt.closed_ms,
    ]
    names = [("a", "auction"), ("b", "to first token"), ("c", "answer"), ("d", "closing")]
    whole = max(1, points[-1] - points[0])
    spans = []
    for (kind, name), start, stop in zip(names, points, points[1:], strict=False):
        if start and stop and stop > start:
            length = stop - start
            said = f"{name} {duration(length)}"
            shown = said if length > whole * _LEGIBLE else ""
            share = f"flex: {length / whole:.4f} 1 0"
            spans.append(tag("span", shown, class_=kind, style=share, title=said))
    return tag("div", *spans, class_="pnv-lane") if spans else Html("")


def _timeline(listed: Listed, receipt: Receipt, proof: Proof) -> Html:
    before = 0
    cells = []
    for what, at_ms, clock in _moments(listed, receipt, proof):
        later = f"+ {duration(at_ms - before)}" if before and at_ms >= before else ""
        cells.append([what, moment(at_ms), later, clock])
        before = at_ms
    return table(["What", "When", "After#", "Whose clock"], cells)


def _moments(listed: Listed, receipt: Receipt, proof: Proof) -> Iterator[_Moment]:
    job = proof.document.get("job")
    if job:
        yield "request created", int(job["message"]["createdMs"]), "gateway"
    yield "received by the coordinator", receipt.received_ms, "coordinator"
    if receipt.awarded_ms:
        yield "awarded to the first node", receipt.awarded_ms, "coordinator"
    if receipt.first_token_ms:
        yield "first token", receipt.first_token_ms, "gateway, else node"
    if receipt.finished_ms:
        yield "answer complete", receipt.finished_ms, "gateway, else node"
    yield "receipt signed", receipt.closed_ms, "coordinator"
    if listed.batch is not None:
        yield f"batch {listed.batch.sequence} signed", listed.batch.time_ms, "coordinator"
    if (settled := listed.settlement) is not None:
        yield (
            f"settled in block {count(settled.block_number)}",
            settled.block_ms,
            "chain, in whole seconds",
        )


def _segments(site: Site, receipt: Receipt) -> Html:
    cells = []
    for segment in receipt.segments:
        clearing = CLEARING.get(Clearing(segment.clearing), "?") if segment.clearing else "–"
        cells.append(
            [
                str(segment.rank) if segment.rank else "passed over",
                party("node", segment.node),
                f"{count(segment.start_byte)}–{count(segment.end_byte)}",
                f"{count(segment.prompt_billed)} / {count(segment.output_billed)}",
                " / ".join(map(count, (segment.output_node, segment.output_gateway, segment.acks))),
                f"{amount(segment.price_in)} / {amount(segment.price_out)}",
                clearing,
                amount(segment.amount),
                amount(segment.fee),
                reason(segment.result) or "well",
            ]
        )
    unit = site.symbol
    columns = ["Rank", "Node", "Bytes#", "Billed in / out#", "Node / gateway / acks#"]
    columns += [f"Price in / out per M, {unit}#", "Clearing", f"Amount {unit}#", "Fee#", "Result"]
    return table(columns, cells, empty="no node served: nothing is charged")


def _people(site: Site, receipt: Receipt) -> Html:
    return pairs(
        {
            "Payer": party("payer", receipt.payer),
            "Gateway": party("gateway", receipt.gateway),
            "Payer's running total": join(
                f"{amount(receipt.payer_total)} {site.symbol} after "
                f"{count(receipt.payer_counter)} receipts"
            ),
            "Spent under its grant": f"{amount(receipt.grant_spent)} {site.symbol}, this day "
            f"{amount(receipt.grant_spent_day)}",
        }
    )


def _settlement(site: Site, listed: Listed, receipt: Receipt) -> Html:
    batch, settled = listed.batch, listed.settlement
    if batch is None:
        return note(
            mark(Mark.LACKS),
            " The receipt is in the log, and no batch covers it yet. Batches are closed by number,"
            " age or value of the receipts that wait.",
            kind="lacks",
        )
    message = batch_message(batch)
    debits, credits_ = unpack_rows(message.debits), unpack_rows(message.credits)
    nodes = {segment.node for segment in receipt.segments if segment.rank}
    unit = site.symbol
    rows = {
        "Batch": join(
            link(f"batch {batch.sequence}", batch=str(batch.sequence)),
            f", leaves {count(batch.prev_size)} to {count(batch.new_size - 1)}; this is leaf "
            f"{count(listed.row.position)} ",
            anchor_mark(batch, settled),
        ),
        "Payer's row": f"{amount(debits.get(receipt.payer, 0))} {unit} debited for the whole batch",
    }
    for node in sorted(nodes):
        credited = amount(credits_.get(node, 0))
        rows["Node's row"] = join(party("node", node), f" {credited} {unit} credited for the batch")
    if settled is not None:
        rows["Block"] = f"{count(settled.block_number)}, {moment(settled.block_ms)}"
        rows["Transaction"] = transaction(settled.transaction)
        rows["Anchored root"] = tag("code", to_hex(settled.new_root))
    else:
        rows["Block"] = "not on chain yet"
    return join(
        pairs(rows),
        source("batch: signed by the coordinator, recomputed here; block: the chain's events"),
    )
