"""Tables in Markdown."""

from nnunetv2_hlfd.utilities.markdown import markdown_table


def test_columns_are_aligned_and_a_bar_in_a_cell_is_no_column():
    assert markdown_table(["", "a|b"], [["long name", "1"], ["x", "22"]]) == (
        "|           | a\\|b |\n| --------- | ---- |\n| long name | 1    |\n| x         | 22   |"
    )


def test_a_table_without_rows_has_a_head():
    assert markdown_table(["a", "b"], []) == "| a | b |\n| - | - |"


def test_a_backslash_before_a_bar_opens_no_column():
    [*_, row] = markdown_table(["a"], [["x\\|y\\\\|z"]]).splitlines()
    assert row == "| x\\|y\\|z |"
