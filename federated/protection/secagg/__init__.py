"""SecAgg+: the coordinator learns the sum of the sites' updates and nothing else.

It is Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, Algorithm 2, for a coordinator that follows the protocol.
Each part is a module: ``graph`` says who masks with whom, ``keys`` how two sites come to a common
secret, ``shares`` how a site lets others recover for it, ``masks`` what is added to an update,
``protocol`` what each party does in the four stages, ``bounds`` how many neighbours a round needs
and which threshold, and ``round`` what the parties know of a round.
"""
