from federated.randomness import derive_seed, numpy_generator, torch_generator


def test_every_argument_matters():
    base = {"purpose": "a", "round_number": 1, "site": "s"}
    seeds = {derive_seed(0, **base), derive_seed(1, **base)}
    seeds |= {derive_seed(0, **(base | change)) for change in ({"purpose": "b"}, {"site": "t"})}
    seeds.add(derive_seed(0, **(base | {"round_number": 2})))
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_equal_arguments_give_equal_draws():
    first, second = (numpy_generator(0, purpose="a").random() for _ in range(2))
    assert first == second
    first, second = (torch_generator(0, purpose="a").initial_seed() for _ in range(2))
    assert first == second
