"""What is known of nodes, from a log's receipts alone: success, calibrations, expected output.

    reputation = Reputation(parameters)
    for receipt in receipts:  # in log order
        reputation.learn(receipt)
    reputation.standing(offer)  # the inputs to the score that a book row holds

`samples` reads one receipt; `pools` weighs what several parties say, so that none of them says
much; `evidence` keeps it; `standing` is the state machine over the log; `replay` checks a published
transcript against it. Everything is integer arithmetic over published bytes and the epoch's
parameters, so a stranger gets the same numbers, byte for byte. Not proven: that a receipt's times
and failures are true, beyond what parties who contradict each other show.
"""

from pinaivu.reputation.standing import Changed, Reputation, Standing

__all__ = ["Changed", "Reputation", "Standing"]
