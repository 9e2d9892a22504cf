from nnunetv2_hlfd.utilities.progress import follow, progress_bar


def test_progress_follows_nnunet():
    with progress_bar(10) as bar:
        follow(bar, "2026-01-01 00:00:00.000000: Epoch 3 \n")
        assert bar.n == 3
        follow(bar, "2026-01-01 00:00:00.000000: Epoch time: 12.3 s\n")
        follow(bar, "2026-01-01 00:00:00.000000: Pseudo dice [0.91, 0.2]\n", ["kidney", "tumor"])
        assert bar.n == 4
        assert bar.postfix == "pseudo Dice: kidney 0.91, tumor 0.20"
        follow(bar, "done with case_017\n")
        assert bar.n == 5


def test_of_many_labels_the_mean_of_those_that_are_there_is_shown():
    with progress_bar(10) as bar:
        follow(bar, "Pseudo dice [np.float32(0.5), np.float32(nan), 0.1, 0.3, 0.3]\n", list("abcde"))
        assert bar.postfix == "pseudo Dice: mean 0.30"


def test_values_that_fit_no_names_stand_alone():
    with progress_bar(10) as bar:
        follow(bar, "Pseudo dice [0.91, nan]\n", ["kidney"])
        assert bar.postfix == "pseudo Dice: 0.91, nan"
