"""SecAgg+: the coordinator learns the sum of the sites' updates and nothing else.

Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, Algorithm 2, for a coordinator that follows the protocol. One
module a part: ``graph`` says who masks with whom, ``keys`` how two sites come to a common secret,
``shares`` how a site lets others recover for it, ``masks`` what is added to an update, and
``protocol`` what each party does in the four stages.
"""
