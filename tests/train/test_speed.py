from shoestring.train.speed import measure_speed


def test_speed_is_measured_without_a_corpus(recipe, runtime):
    assert measure_speed(recipe(), runtime, steps=1) > 0
