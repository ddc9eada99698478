"""The kinds of messages: what each is for, who sends it, and how long it may be.

What a kind's body may weigh is checked before memory is taken for it. Where that depends on the
model or on how many cases there are, whoever reads works it out.
"""

from typing import Final

# From the coordinator to all sites.
PROPOSAL: Final = "proposal"
RUN_PLAN: Final = "run-plan"
ROUND_PLAN: Final = "round-plan"
EVALUATION_PLAN: Final = "evaluation-plan"
FINAL_PLAN: Final = "final-plan"
# What is asked in a sum over the sites, after the last round, of the model that the run keeps.
FINAL_SUM_PLAN: Final = "final-sum-plan"
STATISTICS_PLAN: Final = "statistics-plan"
# What was counted of all sites' cases together, which each then compares its own with.
COUNTED: Final = "counted"
STATE: Final = "state"
ROSTER: Final = "roster"
SHARING: Final = "sharing"
RESPONDED: Final = "responded"
AGREED: Final = "agreed"
CHALLENGE: Final = "challenge"
KEY_ROSTER: Final = "key-roster"
# That an attempt at a run has ended: nothing more of it is wanted.
ENDED: Final = "ended"
# From the coordinator to one site.
OFFER: Final = "offer"
STYLES: Final = "styles"
INBOX: Final = "inbox"
SUM: Final = "sum"
# Followed by its number: which stage a site of a consortium is to do now.
ASK: Final = "ask-"

# From a site to all others; CONSISTENCY too, where a sum is encrypted.
SEALING: Final = "sealing"
KEY: Final = "key"
STYLE: Final = "style"
TAG: Final = "tag"
# From a site to one other.
SEALED_KEY: Final = "sealed-key"
# From a site to the coordinator.
JOINING: Final = "joining"
# Followed by the number of the site that has made the key, in the order of the plan of the run.
HELD: Final = "held-"
ADVERTISED: Final = "advertised"
SHARES: Final = "shares"
PAYLOAD: Final = "payload"
CONSISTENCY: Final = "consistency"
ANSWER: Final = "answer"
OPENED: Final = "opened"
PROOF: Final = "proof"
EVALUATION: Final = "evaluation"
# What is told once, after the last round, of test cases by the model that the run keeps.
FINAL_EVALUATION: Final = "final-evaluation"
# How far a site's own counts are from those of all.
DISTANCES: Final = "distances"
OWN_MODEL: Final = "own-model"
OWN_SHARES: Final = "own-shares"
PICTURES: Final = "pictures"
PRIVACY_REPORT: Final = "privacy-report"
# Followed by the number of what the site was asked: that it is done, or why it is not.
DONE: Final = "done-"
# Followed by the stage after which a site tells of itself.
REPORT: Final = "report-"

# In bytes.
MOST_SMALL: Final = 4 * 2**20
# A plan of as many sites as a run can have, of the longest names.
MOST_PLAN: Final = 16 * 2**20
# What a site is asked, of which the names of a thousand sites are the longest part; and its word,
# of four thousand characters, each of which JSON may write as twelve bytes.
MOST_ASK: Final = 2**20
MOST_DONE: Final = 2**16
# Three keys of 32 bytes, in hexadecimal digits.
MOST_ADVERTISED: Final = 2**10
# The parameters of a key, and its commitment.
MOST_HELD: Final = 2**13
# Of what a site signs in the consistency round: for each site its name, which JSON may write as six
# hundred bytes, and what is the same for any number of them.
MOST_VIEW_EACH: Final = 700
# Of a bundle: what each message has beside its body, of which base64 makes four thirds.
MOST_HEADERS: Final = 6 * 2**10


def is_durable(kind: str, alone: bool = False) -> bool:
    """Whether a message of a kind has to be there after a power cut.

    Of a round that is broken off no report is read any more. Where all parties are ``alone`` on one
    machine they break off together and begin the round anew, and then nothing that sites have sent
    to its sums is read either; nor is what they have answered to a proposal, since another attempt
    proposes anew.
    """
    told = kind.rpartition(".")[2]
    return not told.startswith(REPORT) and not (alone and told in (PAYLOAD, EVALUATION, JOINING))


def most_view(sites: int) -> int:
    """How many bytes what a site signs may have in a round of so many sites."""
    return MOST_VIEW_EACH * (sites + 4)


def most_bundle(sites: int, each: int) -> int:
    """How many bytes a bundle of so many messages may have, of which each has at most ``each``."""
    return sites * (2 * each + MOST_HEADERS)


# A secret key of the largest parameters, sealed, has half of it.
MOST_SEALED_KEY: Final = 16 * 2**20
# Some numbers for each prime of the modulus.
MOST_TAG: Final = 2**16
# Of some thousands of rounds and attempts.
MOST_PRIVACY_REPORT: Final = 64 * 2**20
MOST_PICTURES: Final = 64 * 2**20
# A style is some dozens to some thousands of numbers.
MOST_STYLE: Final = 4 * 2**20
# The predictions of a site's validation and test cases, or the scores of cases.
MOST_EVALUATION: Final = 256 * 2**20
