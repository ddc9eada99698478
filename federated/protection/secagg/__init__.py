"""SecAgg+: the coordinator learns the sum of the sites' updates and nothing else.

It is Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, Algorithm 2, with the signed keys and the consistency round
of Bonawitz et al., CCS 2017, against a coordinator that lies. Each part is a module:

- ``round`` what the parties know of a round, and ``graph`` who masks with whom,
- ``bounds`` how many neighbours a round needs, which threshold and which quorum,
- ``keys`` how two sites come to a common secret, ``shares`` how a seed is split,
- ``roster`` what sites advertise, ``dealing`` how shares are sent and checked,
- ``masks`` what is added to an update,
- ``view`` what a site was told, and ``consistency`` that enough others were told the same,
- ``recovery`` how seeds are put together again, and who is named if they cannot be,
- ``once`` that a site makes nothing twice with its secrets, ``answered`` nor helps to two sums,
- ``protocol`` what each party does in the stages.
"""
