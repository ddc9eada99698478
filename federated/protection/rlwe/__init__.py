"""Encryption without a common key: each site has a short one of its own, and SecAgg+ sums those.

It is the RLWE form of secure aggregation, as in Bell et al., "ACORN: Input Validation for Secure
Aggregation", USENIX Security 2023. In a round with public polynomials a_i, site k encrypts the
polynomials m_k,i of its packed quantised values as

    c_k,i = a_i·s_k + e_k,i + Δ·m_k,i  modulo (q, X^N + 1),

with a short key s_k of the round. The coordinator adds the c_k,i, and gets Σ s_k, N short numbers
however long the update is, from SecAgg+. It takes a_i·Σ s_k away, and rounds: Σ m_k,i is exact.
``parameters`` says which q and N are taken, and why they are secure; ``ring`` multiplies
polynomials, ``encryption`` is the above, and ``bits`` is how numbers lie in a payload.
"""
