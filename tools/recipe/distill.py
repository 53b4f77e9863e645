"""sample: the teacher (or, with --student, the student) writes text. train: 2-bit distillation.
One process per GPU, started by torchrun; the README has the commands."""
import argparse
import glob
import math
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import llama
import quantizer
from llama import HIDDEN, LAYERS, SHAPES, VOCABULARY
from quantizer import BLOCK

TOP, EMBEDDING_TOP = 3, 15  # largest codes: 2 bits, and 4 for the shared embedding
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
DEVICE = torch.device(f"cuda:{RANK}" if torch.cuda.is_available() else "cpu")
HALF = torch.bfloat16


def log(*words):
    if RANK == 0:
        print(*words, flush=True)


# ---- checkpoints: packed codes, so resuming restarts the latent weights at their codes' centres -----

def save_checkpoint(folder, blocks, embedding, norms):
    out, at = {"norms": norms.detach().float().cpu().numpy()}, 0
    for i in range(LAYERS):
        for name, n, k in SHAPES:
            groups = slice(at, at + n * k // BLOCK)
            at = groups.stop
            for part, array in zip("Bsz", quantizer.pack([p[groups] for p in blocks], 2, n, k)):
                out[f"{i}.{name}.{part}"] = array
    for part, array in zip("Bsz", quantizer.pack(embedding, 4, VOCABULARY, HIDDEN)):
        out[f"embedding.{part}"] = array
    os.makedirs(folder, exist_ok=True)
    np.savez(f"{folder}/weights.npz", **out)


def load_checkpoint(folder):
    f = np.load(f"{folder}/weights.npz")
    parts = [quantizer.unpack(*(f[f"{i}.{name}.{p}"] for p in "Bsz"), 2)
             for i in range(LAYERS) for name, _, _ in SHAPES]
    blocks = [torch.cat(p).to(DEVICE) for p in zip(*parts)]
    embedding = [p.to(DEVICE) for p in quantizer.unpack(*(f[f"embedding.{p}"] for p in "Bsz"), 4)]
    return blocks, embedding, torch.from_numpy(f["norms"]).to(DEVICE)


# ---- sampling -------------------------------------------------------------------------------------

def sample(args):
    if args.student:
        blocks, e, norms = load_checkpoint(args.student)
        flat = quantizer.fake_quantize(*blocks, TOP).reshape(-1)
        embedding = quantizer.fake_quantize(*e, EMBEDDING_TOP).reshape(VOCABULARY, HIDDEN)
    else:
        embedding, norms, flat = llama.load_teacher(args.teacher)
    embedding, norms, flat = embedding.to(DEVICE, HALF), norms.to(DEVICE), flat.to(DEVICE, HALF)
    d = np.load(args.data)
    rng = np.random.default_rng(100 + RANK)
    headers = [d["header_assistant"].tolist(), d["header_user"].tolist()]
    rows = []
    for batch in range(args.batches):
        pick = rng.choice(len(d["offsets"]) - 1, args.batch_rows, replace=False)
        prompts = [(d["tokens"][d["offsets"][i]:d["offsets"][i + 1]].tolist(), int(d["role"][i])) for i in pick]
        cool = d["kind"][pick] == 0  # questions; starts of questions and of texts are warmer
        temperature = np.where(cool, rng.choice([0.3, 0.6, 0.8, 1.0], len(pick), p=[0.15, 0.25, 0.3, 0.3]),
                               rng.choice([0.7, 0.85, 1.0], len(pick), p=[0.25, 0.35, 0.4]))
        rows.append(llama.sample_rows(prompts, args.length, temperature, d["chat"][pick].tolist(), headers,
                                      embedding, norms, llama.layer_views(flat), HALF).cpu().numpy())
        log("batch", batch)
    os.makedirs(args.out, exist_ok=True)
    np.save(f"{args.out}/rows_{RANK}.npy", np.concatenate(rows).astype(np.uint16))


def without_loops(rows, rng):
    """Drops four of five rows in which more than half of the 6-grams occurred before."""
    grams = np.lib.stride_tricks.sliding_window_view(rows.astype(np.int64), 6, axis=1)
    keys = np.sort((grams * 1000003 ** np.arange(6)).sum(-1), 1)
    repeated = (keys[:, 1:] == keys[:, :-1]).mean(1)
    return rows[(repeated < 0.5) | (rng.random(len(rows)) < 0.2)]


# ---- training -------------------------------------------------------------------------------------

def starting_point(flat, embedding, norms, rows):
    """Least squared error, weighted by how large each weight's input is on the teacher's own text."""
    cos, sin = llama.rope_tables(rows.shape[1], DEVICE)
    seen = []
    with torch.no_grad():
        llama.body(F.embedding(rows, embedding.to(HALF)), norms, llama.layer_views(flat.to(HALF)), cos, sin, seen=seen)
    w = flat.view(-1, BLOCK).clone()
    log_scale, zero, at = torch.empty(len(w), device=DEVICE), torch.empty(len(w), device=DEVICE), 0
    for squares, (_, n, k) in zip(seen, SHAPES * LAYERS):
        groups = slice(at, at + n * k // BLOCK)
        at = groups.stop
        importance = (squares / squares.mean()).view(1, -1).expand(n, -1).reshape(-1, BLOCK)
        log_scale[groups], zero[groups] = quantizer.search_start(
            w[groups], importance, TOP, [0, 1, 2, 3], np.linspace(0.3, 1.05, 22).tolist())
    e = embedding.float().view(-1, BLOCK).clone()
    start = quantizer.search_start(e, None, EMBEDDING_TOP, None, np.linspace(0.75, 1.0, 11).tolist())
    return [w, log_scale, zero], [e, *start], norms.clone()


class Adam:
    """Adam's direction with clipped steps (beta 0.9 and 0.97)."""

    def __init__(self, shape_like):
        self.m, self.v, self.steps = torch.zeros_like(shape_like), torch.zeros_like(shape_like), 0

    def direction(self, g):
        self.steps += 1
        self.m.mul_(0.9).add_(g, alpha=0.1)
        self.v.mul_(0.97).addcmul_(g, g, value=0.03)
        m, v = self.m / (1 - 0.9 ** self.steps), self.v / (1 - 0.97 ** self.steps)
        return (m / (v.sqrt() + 1e-12)).clamp(-5, 5)


class Quantized:
    """A quantized tensor in training: latent weights, log scales, zero points."""

    def __init__(self, parameters, top):
        self.parameters, self.top = parameters, top
        self.adam = [Adam(p) for p in parameters]

    def write_rounded(self, out, share):
        out.view(-1, BLOCK).copy_(quantizer.fake_quantize(*self.parameters, self.top, share))

    def update(self, g, rates, share):
        w, log_scale, zero = self.parameters
        gs = quantizer.gradients(g.float().view(-1, BLOCK), w, log_scale, zero, self.top, share)
        dw, ds, dz = (a.direction(x) for a, x in zip(self.adam, gs))
        w.sub_(rates[0] * log_scale.exp()[:, None] * dw)  # steps in units of the block's scale
        log_scale.sub_(rates[1] * ds)
        zero.sub_(rates[2] * dz).clamp_(-0.49, self.top + 0.49)


def divergence(student, teacher, embedding_s, embedding_t):
    """Summed KL(teacher || student) of the next token, and its gradient by the student's logits."""
    ls = F.log_softmax(F.linear(student, embedding_s).float(), -1)
    lt = F.log_softmax(F.linear(teacher, embedding_t).float(), -1)
    p = lt.exp()
    return (p * (lt - ls)).sum(), ls.exp() - p


def train(args):
    if WORLD > 1:
        dist.init_process_group("nccl" if DEVICE.type == "cuda" else "gloo")
    d, rng = np.load(args.data), np.random.default_rng(6)
    files = sorted(f for folder in args.samples for f in glob.glob(f"{folder}/rows_*.npy"))
    rows = np.concatenate([without_loops(np.load(f), rng) for f in files] + [d["real"]])[:, :args.length]
    rows = torch.from_numpy(rows[rng.permutation(len(rows))].astype(np.int32))
    embedding_t, norms_t, flat_t = (t.to(DEVICE) for t in llama.load_teacher(args.teacher))
    if args.resume:
        blocks, e, norms = load_checkpoint(args.resume)
    else:
        blocks, e, norms = starting_point(flat_t, embedding_t, norms_t, rows[:8].long().to(DEVICE))
    embedding_t, layers_t = embedding_t.to(HALF), llama.layer_views(flat_t.to(HALF))
    blocks, shared = Quantized(blocks, TOP), Quantized(e, EMBEDDING_TOP)
    norm_adam = Adam(norms)

    flat = torch.empty(LAYERS * llama.BLOCK_WEIGHTS, device=DEVICE, dtype=HALF)
    embedding = torch.empty(VOCABULARY, HIDDEN, device=DEVICE, dtype=HALF)
    flat.requires_grad_()
    norms.requires_grad_()
    block_fn = torch.compile(llama.block, dynamic=False) if args.compile else llama.block
    cos, sin = llama.rope_tables(rows.shape[1], DEVICE)
    n_tokens = args.rows * rows.shape[1]
    order, at = None, 0
    for step in range(args.steps):
        done = step / args.steps
        rate = min(1.0, (step + 1) / args.warm_up)
        rate *= args.final_lr + (1 - args.final_lr) * 0.5 * (1 + math.cos(math.pi * done))
        share = 1.0 if args.resume else min(1.0, (step + 1) / max(1, 0.06 * args.steps))
        rates = [args.lr * rate, args.lr_scale * rate, args.lr_zero * rate if done < 0.8 else 0.0]
        if order is None or at + args.rows * WORLD > len(order):
            order, at = torch.randperm(len(rows), generator=torch.Generator().manual_seed(step)), 0
        ids = rows[order[at + RANK * args.rows:at + (RANK + 1) * args.rows]].long().to(DEVICE)
        at += args.rows * WORLD
        with torch.no_grad():
            blocks.write_rounded(flat, share)
            shared.write_rounded(embedding, share)
            target = llama.body(F.embedding(ids, embedding_t), norms_t, layers_t, cos, sin, block_fn).view(-1, HIDDEN)
        flat.grad = norms.grad = None
        x = F.embedding(ids, embedding).requires_grad_()
        hidden = llama.body(x, norms, llama.layer_views(flat), cos, sin, block_fn)
        with torch.no_grad():  # the head by hand, in pieces: logits of a whole batch would not fit
            h = hidden.detach().view(-1, HIDDEN)
            g_hidden, g_embedding = torch.empty_like(h), torch.zeros(VOCABULARY, HIDDEN, device=DEVICE)
            loss = 0.0
            for a in range(0, n_tokens, 8192):
                part = slice(a, a + 8192)
                kl, g = divergence(h[part], target[part], embedding, embedding_t)
                g = (g / (n_tokens * WORLD)).to(HALF)
                g_hidden[part] = g @ embedding
                g_embedding += (g.T @ h[part]).float()
                loss += kl.item()
        hidden.backward(g_hidden.view_as(hidden))
        with torch.no_grad():
            g_embedding.index_add_(0, ids.view(-1), x.grad.view(-1, HIDDEN).float())
            if WORLD > 1:
                for g in (flat.grad, g_embedding, norms.grad):
                    dist.all_reduce(g)
            blocks.update(flat.grad, rates, share)
            shared.update(g_embedding, rates, share)
            norms.sub_(args.lr_norm * rate * (norms.abs() + 0.05) * norm_adam.direction(norms.grad))
        if step % 50 == 0:
            log(f"step {step} of {args.steps}: divergence {loss / n_tokens:.4f}, rate {rate:.3f}")
    if RANK == 0:
        save_checkpoint(args.out, blocks.parameters, shared.parameters, norms)
    if WORLD > 1:
        dist.barrier()
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    stages = parser.add_subparsers(required=True)
    s = stages.add_parser("sample")
    s.set_defaults(run=sample)
    s.add_argument("teacher")
    s.add_argument("data")
    s.add_argument("out")
    s.add_argument("--student", help="checkpoint: the student writes instead of the teacher")
    s.add_argument("--batches", type=int, default=22)
    s.add_argument("--batch-rows", type=int, default=2048)
    s.add_argument("--length", type=int, default=768)
    t = stages.add_parser("train")
    t.set_defaults(run=train)
    t.add_argument("teacher")
    t.add_argument("data")
    t.add_argument("samples", nargs="+", help="folders that `sample` wrote")
    t.add_argument("out")
    t.add_argument("--resume", help="checkpoint to go on from")
    t.add_argument("--steps", type=int, default=5800)
    t.add_argument("--rows", type=int, default=64, help="rows a process takes at each step")
    t.add_argument("--length", type=int, default=768)
    t.add_argument("--lr", type=float, default=6e-3, help="of weights, in units of their block's scale")
    t.add_argument("--lr-scale", type=float, default=1e-3)
    t.add_argument("--lr-zero", type=float, default=2e-3)
    t.add_argument("--lr-norm", type=float, default=1e-3)
    t.add_argument("--final-lr", type=float, default=0.02, help="share of the rates that is left at the end")
    t.add_argument("--warm-up", type=int, default=100)
    t.add_argument("--compile", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(1234 + RANK)
    if DEVICE.type == "cuda":
        torch.cuda.set_device(DEVICE)
    args.run(args)


if __name__ == "__main__":
    main()
