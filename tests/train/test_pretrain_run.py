from dataclasses import replace

import torch

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.train.pretrain_run import build


def test_a_new_run_does_not_take_the_tokenizer_of_a_failed_one(recipe, runtime, tmp_path):
    other = Tokenizer.train(["zyx wvu " * 500], 300)
    other.save(tmp_path / "run" / "tokenizer")
    fresh = build(recipe(), runtime, tmp_path / "run", resume=False)
    assert fresh.tokenizer.encode("return while") != other.encode("return while")


def test_two_ranks_read_one_stream_between_them(recipe, runtime, tmp_path):
    loaders = [
        build(
            recipe(), replace(runtime, rank=rank, world_size=size), tmp_path / f"{rank}{size}", resume=False
        ).loader
        for rank, size in ((0, 1), (0, 2), (1, 2))
    ]
    for rows in (2, 4, 4):
        whole, first, second = (torch.from_numpy(loader.next_batch(rows).inputs) for loader in loaders)
        assert torch.equal(whole, torch.cat((first, second)))
