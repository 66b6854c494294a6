"""Recipes: from the files of a public data set, as they were published, to the container that `data=NAME` reads."""

from krontime.data.recipes.bonn import bonn_eeg
from krontime.data.recipes.container import Container, Recipe
from krontime.data.recipes.records import ctu_uhb_ctg, mitbih_ecg, ptb_xl
from krontime.data.recipes.sounds import esc10, esc50, fsdd

RECIPES = {
    "bonn_eeg": Recipe(bonn_eeg, "BonnEEG.npz", train=(70,) * 5, test=(30,) * 5, lengths=(4_097, 4_097)),
    "ctu_uhb_ctg": Recipe(ctu_uhb_ctg, "CTU_UHB_CTG.npz", train=(335, 79), test=(112, 26), lengths=(14_400, 21_620)),
    "esc10": Recipe(esc10, "ESC10_8k.npz", train=(32,) * 10, test=(8,) * 10, lengths=(40_000, 40_000)),
    "esc50": Recipe(esc50, "ESC50_8k.npz", train=(32,) * 50, test=(8,) * 50, lengths=(40_000, 40_000)),
    "fsdd": Recipe(fsdd, "FSDD.npz", train=(270,) * 10, test=(30,) * 10, lengths=(1_148, 18_262)),
    "mitbih_ecg": Recipe(
        mitbih_ecg, "MITBIH_ECG.npz", train=(1_068, 516, 142), test=(1_062, 528, 147), lengths=(4_096, 4_096)
    ),
    "ptb_xl": Recipe(ptb_xl, "PTB_XL.npz", train=None, test=None, lengths=(1_000, 1_000)),
}
"""By the name of the data set, what makes it, the file that `data=NAME` reads, and what the whole of it holds."""

__all__ = ["RECIPES", "Container", "Recipe"]
