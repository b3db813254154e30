from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="FOMM runs on torch")

import torch

from mien_generator.face.fomm.device.bank import BankFull, SourceBank

CPU = torch.device("cpu")


def filled(bank: SourceBank, values: list[float]) -> list[int]:
    rows = [bank.take() for _ in values]
    for row, value in zip(rows, values, strict=True):
        bank.row(row).fill_(value)
    return rows


def gathered(bank: SourceBank, rows: list[int]) -> list[float]:
    out = torch.empty(len(rows), 3)
    bank.gather(torch.tensor(rows), out)
    assert (out == out[:, :1]).all()
    return [float(value) for value in out[:, 0]]


def test_growing_keeps_what_is_held() -> None:
    bank = SourceBank(3, torch.float32, CPU, limit=100)
    values = [float(value) for value in range(40)]
    rows = filled(bank, values)
    assert len(set(rows)) == 40
    assert gathered(bank, rows) == values
    assert gathered(bank, [rows[7], rows[39], rows[7]]) == [7, 39, 7]


def test_a_row_given_back_is_the_next_one_taken() -> None:
    bank = SourceBank(3, torch.float32, CPU, limit=100)
    rows = filled(bank, [0.0, 1.0, 2.0])
    bank.give_back(rows[1])
    assert bank.in_use == 2
    assert filled(bank, [9.0]) == [rows[1]]
    assert gathered(bank, rows) == [0, 9, 2]


def test_its_limit() -> None:
    bank = SourceBank(3, torch.float32, CPU, limit=11)
    rows = filled(bank, [1.0] * 11)
    with pytest.raises(BankFull, match=r"^the device has 11 avatars, which is its limit$"):
        bank.take()
    bank.give_back(rows[4])
    assert bank.take() == rows[4]


def test_memory_that_runs_out_leaves_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = SourceBank(3, torch.float32, CPU, limit=100)
    rows = filled(bank, [float(value) for value in range(8)])

    def no_memory(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "new_empty", no_memory)
        with pytest.raises(BankFull, match=r"^the device's memory is too small for more than 8 avatars$"):
            bank.take()
    assert gathered(bank, rows) == list(range(8))


def test_cleared_it_holds_nothing_and_takes_nothing() -> None:
    bank = SourceBank(3, torch.float32, CPU, limit=100)
    (row,) = filled(bank, [1.0])
    bank.clear()
    bank.give_back(row)
    assert bank.in_use == 0
    with pytest.raises(BankFull):
        bank.take()
