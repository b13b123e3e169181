"""The functions that an opaque node may call: pure functions of tensors, by name.

A file can name no other, so nothing in it ever runs as code. Each name may be called as `torch.NAME`, as
`torch.nn.functional.NAME`, as a tensor's method, or as a function of Python's `operator`, where there is one of that
name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from graphs.errors import GraphError

__all__ = ["ELEMENTWISE", "PREFIXES", "allowed", "function"]

PREFIXES = ("torch", "functional", "method", "operator", "special", "linalg", "fft")
"""Where a function may come from."""

_NAMES = frozenset(
    """
    _weight_norm abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool2d_with_indices adaptive_max_pool3d
    adaptive_max_pool3d_with_indices add addbmm addcdiv addcmul addmm addmv addr adjoint affine_grid all
    alpha_dropout amax amin aminmax and_ angle any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax
    argmin argsort asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bernoulli
    bfloat16 bilinear binary_cross_entropy binary_cross_entropy_with_logits bitwise_and bitwise_not bitwise_or
    bitwise_xor bmm bool broadcast_tensors broadcast_to bucketize cat cdist ceil celu channel_shuffle chunk clamp
    clamp_max clamp_min clip clone column_stack complex concat concatenate conj constant_pad_nd contiguous conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d copysign corrcoef cos cosh
    cosine_embedding_loss cosine_similarity count_nonzero cov cross cross_entropy cummax cummin cumprod cumsum
    deg2rad det detach diag diag_embed diagonal diagonal_scatter diff digamma dist div divide dot double dropout
    dropout1d dropout2d dropout3d dstack eigvalsh einsum elu embedding embedding_bag entr eq erf erfc erfcx erfinv
    exp exp2 expand expand_as expit expm1 feature_alpha_dropout feature_dropout fft fft2 fftn fftshift fix flatten
    flip fliplr flipud float float_power floor floor_divide floordiv fmax fmin fmod fold frac full_like gammaln
    gather gaussian_nll_loss ge gelu getitem glu greater greater_equal grid_sample grid_sampler group_norm gru
    gru_cell gt gumbel_softmax half hardshrink hardsigmoid hardswish hardtanh heaviside hfft hinge_embedding_loss
    householder_product hstack huber_loss hypot i0 ifft ifft2 ifftn ifftshift ihfft imag index_add index_copy
    index_fill index_put index_reduce index_select inner instance_norm int interpolate inv inverse invert irfft
    irfft2 irfftn isclose isfinite isinf isnan isneginf isposinf istft kl_div kron kthvalue l1_loss layer_norm ldexp
    le leaky_relu lerp less less_equal lgamma linear local_response_norm log log10 log1p log2 log_ndtr log_softmax
    logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logsigmoid
    logsumexp long lp_pool1d lp_pool2d lstm lstm_cell lt margin_ranking_loss masked_fill masked_scatter
    masked_select matmul matrix_exp matrix_norm matrix_power max max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool1d max_unpool2d max_unpool3d maximum mean
    median meshgrid min minimum mish mm mod mode moveaxis movedim mse_loss mul multi_dot
    multi_head_attention_forward multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss multiply mv
    nan_to_num nanmean nanquantile nansum narrow native_channel_shuffle ndtr ndtri ne neg negative new_full new_ones
    new_zeros nll_loss norm normalize not_equal one_hot ones_like or_ outer pad pairwise_distance permute
    pixel_shuffle pixel_unshuffle poisson_nll_loss polar polygamma pos positive pow prelu prod quantile rad2deg
    rand_like randint_like randn_like ravel real reciprocal relu relu6 remainder renorm repeat repeat_interleave reshape
    reshape_as rfft rfft2 rfftn rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round rrelu rsqrt
    rsub scaled_dot_product_attention scatter scatter_add scatter_reduce select select_scatter selu sgn sigmoid sign
    signbit silu sin sinc sinh slice_scatter smooth_l1_loss soft_margin_loss softmax softmin softplus softshrink
    softsign solve_triangular sort split sqrt square squeeze stack std std_mean stft sub subtract sum svdvals
    swapaxes swapdims t take take_along_dim tan tanh tanhshrink tensor_split tensordot threshold tile to topk trace
    transpose trapezoid tril triplet_margin_loss triu true_divide truediv trunc type_as unbind unflatten unfold
    unsqueeze upsample vander var var_mean vdot vecdot vector_norm view view_as view_as_complex view_as_real vstack
    where xlog1py xlogy xor zeros_like
    """.split()
)  # fmt: skip


ELEMENTWISE = frozenset(
    """
    abs add acos asin atan ceil celu clamp clamp_max clamp_min cos cosh div divide elu erf exp expm1 floor floor_divide
    hardshrink hardtanh log log10 log1p log2 logsigmoid maximum minimum mish mul multiply neg negative pos positive pow
    reciprocal relu remainder round rsqrt rsub selu sigmoid sign sin sinh softplus softshrink softsign sqrt square sub
    subtract tan tanh tanhshrink threshold true_divide truediv trunc
    """.split()
)
"""Functions whose result at a place depends on the operands at that place alone."""


def allowed(target: str) -> bool:
    """Whether an opaque node may call `target`, such as `torch.softmax`."""
    prefix, _, name = target.partition(".")
    return prefix in PREFIXES and name in _NAMES


def function(target: str) -> Callable[..., Any]:
    """The function called `target`; a method is a function whose first argument is the tensor.

    Raises:
        GraphError: It is none of the allowed ones, or does not exist in this version of torch.
    """
    import torch

    prefix, _, name = target.partition(".")
    if not allowed(target):
        raise GraphError(f"'{target}' is none of the functions that a network's file may call")
    homes: dict[str, Any] = {
        "torch": torch,
        "functional": torch.nn.functional,
        "method": torch.Tensor,
        "operator": operator,
        "special": torch.special,
        "linalg": torch.linalg,
        "fft": torch.fft,
    }
    found: Callable[..., Any] | None = getattr(homes[prefix], name, None)
    if not callable(found):
        raise GraphError(f"'{target}' does not exist in torch {torch.__version__}")
    return found
