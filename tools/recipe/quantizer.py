"""Blocks of 32 weights as w = (code - zero point) * scale: rounding with gradients, starting values,
packing. Weights are [G, 32], log scales and zero points [G]; zero points are learned as floats."""
import numpy as np
import torch

BLOCK = 32


def _rounded(log_scale, zero, top):
    """Scales that bfloat16 and float16 both hold exactly, and integer zero points, as columns."""
    return log_scale.exp().bfloat16().float()[:, None], zero.round().clamp(0, top)[:, None]


def fake_quantize(w, log_scale, zero, top, share=1.0):
    """The weights that codes 0..top can say; share < 1 blends with the unrounded ones (warm-up)."""
    scale, z = _rounded(log_scale, zero, top)
    q = torch.minimum(torch.maximum((w / scale).round(), -z), top - z) * scale
    return w + share * (q - w)


def gradients(g, w, log_scale, zero, top, share):
    """From the gradient of the rounded weights to those of weights, log scales and zero points.
    Rounding counts as the identity; a clipped weight only gets what pulls it back into range."""
    scale, z = _rounded(log_scale, zero, top)
    v = w / scale
    r = v.round()
    low, high = r < -z, r > top - z
    inside = ~(low | high)
    keep = inside | (high & (g > 0)) | (low & (g < 0))
    step = torch.where(inside, r - v, torch.minimum(torch.maximum(r, -z), top - z))
    return (torch.where(keep, g, (1 - share) * g), share * (g * step).sum(1) * scale[:, 0],
            -share * (g * ~inside).sum(1) * scale[:, 0])


def search_start(w, importance, top, zeros, fractions):
    """Scale and zero point of least (weighted) squared error, by search. zeros None: one from the
    block's minimum and maximum, for wide codes."""
    most, least = w.amax(1).clamp_min(1e-6), (-w.amin(1)).clamp_min(1e-6)
    best = torch.full_like(most, torch.inf)
    log_scale, zero = torch.zeros_like(most), torch.zeros_like(most)
    for z in zeros or [None]:
        for fraction in fractions:
            if z is None:
                scale = (most + least) / top * fraction
                zz = (least / (most + least) * top).round().clamp(0, top)
            else:
                up = most / (top - z) if z < top else torch.zeros_like(most)
                down = least / z if z > 0 else torch.zeros_like(least)
                scale, zz = torch.maximum(up, down) * fraction, torch.full_like(most, z)
            scale = scale.clamp_min(2e-5)
            error = (fake_quantize(w, scale.log(), zz, top) - w).pow(2)
            error = (error if importance is None else error * importance).sum(1)
            better = error < best
            best = torch.where(better, error, best)
            log_scale = torch.where(better, scale.log(), log_scale)
            zero = torch.where(better, zz, zero)
    return log_scale, zero


def codes(w, log_scale, zero, top):
    scale, z = _rounded(log_scale, zero, top)
    q = torch.minimum(torch.maximum((w / scale).round(), -z), top - z) + z
    return q.to(torch.uint8), scale[:, 0].half(), z[:, 0].to(torch.uint8)


def _pack_rows(v, bits):
    """Codes [rows, n], low bits first; each row is padded to a whole byte."""
    per_byte = 8 // bits
    v = np.pad(v, ((0, 0), (0, -v.shape[1] % per_byte))).reshape(len(v), -1, per_byte)
    return np.bitwise_or.reduce(v << (np.arange(per_byte, dtype=np.uint8) * bits), -1).astype(np.uint8)


def _unpack_rows(v, bits, n):
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    return ((v[..., None] >> shifts) & (2 ** bits - 1)).reshape(len(v), -1)[:, :n]


def pack(parameters, bits, n, k):
    """-> MatMulNBits' B [n, k / 32, 32 * bits / 8], scales [n, k / 32], zero points [n, bytes]."""
    q, s, z = (t.cpu().numpy() for t in codes(*parameters, 2 ** bits - 1))
    blocks = k // BLOCK
    return (_pack_rows(q.reshape(n, k), bits).reshape(n, blocks, BLOCK * bits // 8), s.reshape(n, blocks),
            _pack_rows(z.reshape(n, blocks), bits))


def unpack(b, s, z, bits):
    """Latent weights at the centres of their codes, log scales, zero points."""
    n, blocks = s.shape
    q = torch.from_numpy(_unpack_rows(b.reshape(n, -1), bits, blocks * BLOCK).astype(np.float32))
    zero = torch.from_numpy(_unpack_rows(z, bits, blocks).astype(np.float32)).reshape(-1)
    scale = torch.from_numpy(s.astype(np.float32)).reshape(-1)
    return (q.reshape(-1, BLOCK) - zero[:, None]) * scale[:, None], scale.log(), zero
