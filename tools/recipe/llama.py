"""SmolLM2-135M in PyTorch: weights from GGUF, the forward pass, and batched sampling with a cache."""
import gguf
import numpy as np
import torch
import torch.nn.functional as F

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCABULARY = 30, 576, 9, 3, 64, 1536, 49152
THETA, EPSILON = 100000.0, 1e-5
# The four linear layers of a block, [out, in]: q, k, v packed; attention out; gate and up packed; down.
SHAPES = [("qkv", 960, 576), ("o", 576, 576), ("gu", 3072, 576), ("down", 576, 1536)]
BLOCK_WEIGHTS = sum(n * k for _, n, k in SHAPES)
END_OF_TURN = 2


def load_teacher(path):
    """GGUF -> embedding [V, H], norms [2 * LAYERS + 1, H], all block weights in one flat tensor."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}

    def weight(name):
        t = tensors[name]
        return np.asarray(gguf.dequantize(t.data, t.tensor_type), np.float32)

    def rotate_half_order(w, heads):  # llama.cpp interleaves the two rotary halves of a head
        return w.reshape(heads, HEAD_DIM // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)

    flat, norms = [], []
    for i in range(LAYERS):
        b = f"blk.{i}."
        parts = [rotate_half_order(weight(b + "attn_q.weight"), HEADS),
                 rotate_half_order(weight(b + "attn_k.weight"), KV_HEADS), weight(b + "attn_v.weight"),
                 weight(b + "attn_output.weight"), weight(b + "ffn_gate.weight"),
                 weight(b + "ffn_up.weight"), weight(b + "ffn_down.weight")]
        flat += [p.ravel() for p in parts]
        norms += [weight(b + "attn_norm.weight"), weight(b + "ffn_norm.weight")]
    norms.append(weight("output_norm.weight"))
    return (torch.from_numpy(weight("token_embd.weight")), torch.from_numpy(np.stack(norms)),
            torch.from_numpy(np.concatenate(flat)))


def layer_views(flat):
    """The flat tensor as a list of layers, each a list of four matrices that share its memory."""
    layers, at = [], 0
    for _ in range(LAYERS):
        layers.append([])
        for _, n, k in SHAPES:
            layers[-1].append(flat[at:at + n * k].view(n, k))
            at += n * k
    return layers


def rope_tables(length, device):
    inverse = 1.0 / THETA ** (torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * inverse
    angle = torch.cat([angle, angle], 1).to(device)
    return angle.cos(), angle.sin()


def rms_norm(x, w):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPSILON) * w.float()).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


def block(x, norm1, wqkv, wo, norm2, wgu, wdown, cos, sin, cache=None, at=None, seen=None):
    """One transformer block. With a cache (k, v of [B, KV_HEADS, T, HEAD_DIM]) x is one new token each.
    `seen`, a list, receives the mean squares of the inputs of the four linear layers."""
    B, T, _ = x.shape
    note = (lambda t: seen.append(t.float().pow(2).mean((0, 1)))) if seen is not None else lambda t: None
    h = rms_norm(x, norm1)
    note(h)
    qkv = F.linear(h, wqkv).view(B, T, HEADS + 2 * KV_HEADS, HEAD_DIM).transpose(1, 2)
    q, k, v = qkv.split([HEADS, KV_HEADS, KV_HEADS], 1)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    if cache is None:
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    else:
        keys, values = cache
        keys[:, :, at:at + 1], values[:, :, at:at + 1] = k, v
        a = F.scaled_dot_product_attention(q, keys[:, :, :at + 1], values[:, :, :at + 1], enable_gqa=True)
    a = a.transpose(1, 2).reshape(B, T, HIDDEN)
    note(a)
    x = x + F.linear(a, wo)
    h = rms_norm(x, norm2)
    note(h)
    gate, up = F.linear(h, wgu).chunk(2, -1)
    h = F.silu(gate) * up
    note(h)
    return x + F.linear(h, wdown)


def body(x, norms, layers, cos, sin, block_fn=block, seen=None):
    """Embedded tokens -> normed hidden states; logits are those times the embedding."""
    for i, (wqkv, wo, wgu, wdown) in enumerate(layers):
        more = {} if seen is None else {"seen": seen}
        x = block_fn(x, norms[2 * i], wqkv, wo, norms[2 * i + 1], wgu, wdown, cos, sin, **more)
    return rms_norm(x, norms[-1])


@torch.no_grad()
def sample_rows(prompts, length, temperature, chat, headers, embedding, norms, layers, dtype):
    """Continues each prompt to `length` tokens. In rows with chat[i], the end of a turn is followed by
    the header of the other role (headers = after a user's turn, after an assistant's), so that rows
    become conversations; prompts[i] = (tokens, role being written: 0 user, 1 assistant)."""
    device, B = embedding.device, len(prompts)
    rows = torch.zeros(B, length, dtype=torch.long, device=device)
    forced = [list(tokens[:length]) for tokens, _ in prompts]  # tokens still to be forced
    role = [r for _, r in prompts]
    cache = [(torch.zeros(B, KV_HEADS, length, HEAD_DIM, device=device, dtype=dtype),
              torch.zeros(B, KV_HEADS, length, HEAD_DIM, device=device, dtype=dtype)) for _ in layers]
    cos, sin = rope_tables(length, device)
    inverse = (1.0 / torch.as_tensor(temperature, dtype=torch.float32, device=device))[:, None]
    for i in range(B):
        rows[i, 0] = forced[i].pop(0)
    for t in range(length - 1):
        x = F.embedding(rows[:, t:t + 1], embedding)
        for i, (wqkv, wo, wgu, wdown) in enumerate(layers):
            x = block(x, norms[2 * i], wqkv, wo, norms[2 * i + 1], wgu, wdown, cos[t:t + 1], sin[t:t + 1],
                      cache=cache[i], at=t)
        logits = F.linear(rms_norm(x, norms[-1])[:, 0], embedding).float() * inverse
        gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp(1e-7, 1 - 1e-7)))
        drawn = (logits + gumbel).argmax(-1).tolist()
        for i in range(B):
            if forced[i]:
                drawn[i] = forced[i].pop(0)
            elif chat[i] and drawn[i] == END_OF_TURN:
                forced[i] = list(headers[role[i]])
                role[i] ^= 1
        rows[:, t + 1] = torch.tensor(drawn, device=device)
    return rows
