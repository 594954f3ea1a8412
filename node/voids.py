"""Awards that are void: their gateway reported them failed, and their coordinator says so.

The report ends an award, and frees the node for the next one in the coordinator's count. Neither
is believed alone: a report counts if the gateway of the award signed it and the coordinator of its
log sent it. So a gateway can't end an award here while it stands in the log, and no coordinator can
take away what no gateway gave up.

A report may come before its dispatch: the newest are remembered, in memory. After a restart none
are; neither are the quotes then, and an award for an unknown one is refused.
"""

from collections import OrderedDict
from typing import Final

from node.errors import JobRefused
from pinaivu.codes import Reason
from pinaivu.keys import BadSignature
from pinaivu.messages import Award, Failure
from pinaivu.typed_data import Domain, Signed

KEPT: Final = 1024


class Voids:
    """What coordinators said of failed awards."""

    def __init__(self, domain: Domain, kept: int = KEPT) -> None:
        self._domain = domain
        self._kept = kept
        self._reports: OrderedDict[tuple[bytes, bytes], Signed[Failure]] = OrderedDict()

    def note(self, log_id: bytes, report: Signed[Failure]) -> None:
        """A log's coordinator hands over a gateway's report; who signed it is asked later."""
        self._reports[log_id, report.message.award_digest] = report
        if len(self._reports) > self._kept:
            self._reports.popitem(last=False)

    def require_standing(self, award: Award, digest: bytes) -> None:
        """Raise `JobRefused` where the award's own gateway reported it failed to its own log."""
        report = self._reports.get((award.log_id, digest))
        if report is None:
            return
        try:
            report.require(self._domain, award.gateway)
        except BadSignature:
            return
        raise JobRefused(Reason.REFUSED, "the award is void: its gateway reported it failed")
