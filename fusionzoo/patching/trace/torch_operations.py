"""Names of torch operations by what they do to the elements of a tensor."""

MOVES = frozenset(
    (
        "view", "reshape", "permute", "transpose", "t", "T", "mT", "H", "mH", "swapaxes", "swapdims", "squeeze",
        "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "tile", "flatten", "ravel", "unflatten",
        "movedim", "moveaxis", "chunk", "split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit",
        "unbind", "__getitem__", "index_select", "select", "narrow", "gather", "take", "take_along_dim",
        "masked_select", "flip", "fliplr", "flipud", "roll", "rot90", "contiguous", "diagonal", "unfold", "view_as",
        "reshape_as", "pad", "_pack_padded_sequence", "_pad_packed_sequence", "pad_sequence", "atleast_1d",
        "atleast_2d", "atleast_3d", "broadcast_to", "broadcast_tensors", "cat", "concat", "concatenate", "hstack",
        "vstack", "dstack", "column_stack", "row_stack", "stack", "index_copy", "scatter", "index_put", "masked_scatter", "where",
        "constant_pad_nd", "tril", "triu", "diag", "diag_embed", "block_diag", "meshgrid", "cartesian_prod",
        "nan_to_num", "select_scatter", "slice_scatter", "narrow_copy", "swapaxes",
    )
)  # fmt: skip
#: Of those, what gives the same elements in another shape.
RESHAPES = frozenset(("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "contiguous"))
FIRST_ONLY = frozenset(
    (
        "gather", "take", "take_along_dim", "index_select", "masked_select", "__getitem__", "repeat_interleave",
    )
)  # fmt: skip
SUMS_LAST = frozenset(
    (
        "linear", "embedding_bag",
    )
)  # fmt: skip
RECURRENT = frozenset(
    (
        "lstm", "gru", "rnn_tanh", "rnn_relu",
    )
)  # fmt: skip
CELLS = frozenset(
    (
        "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    )
)  # fmt: skip
SCATTERS = frozenset(
    (
        "index_add", "scatter_add", "scatter_reduce", "index_reduce",
    )
)  # fmt: skip
REDUCTIONS = frozenset(
    (
        "sum", "mean", "max", "min", "amax", "amin", "prod", "logsumexp", "norm", "std", "var", "any", "all", "median",
        "nanmean", "nansum", "argmax", "argmin", "vector_norm", "std_mean", "var_mean", "mode", "quantile",
    )
)  # fmt: skip
SILENT = frozenset(
    (
        "argmax", "argmin", "argsort", "eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "nonzero",
        "bucketize", "searchsorted",
        # Made in the likeness of a tensor, but not of what it holds.
        "new_ones", "new_zeros", "new_empty", "new_full", "new_tensor", "zeros_like", "ones_like", "empty_like",
        "full_like", "rand_like", "randn_like", "randint_like",
    )
)  # fmt: skip
LIKENESS = frozenset(
    ("type_as", "to", "view_as", "expand_as", "reshape_as")
)  # of the second tensor: its values do not matter
