#!/usr/bin/env bash
# The whole pipeline on a small text: tokenizer, shards, training, evaluation, generation, report. Under a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
cupola=${CUPOLA:-${CARGO_TARGET_DIR:-target}/release/cupola}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '\n-- %s\n' "$*"; }

say doctor
"$cupola" doctor

say tokenizer
"$cupola" tokenizer train --input assets/held_out_book.txt.zst --vocab-size 512 \
    --special-token '<|endoftext|>' --output "$work/tokenizer.json"
ids=$("$cupola" tokenizer encode --tokenizer "$work/tokenizer.json" --text 'Hello, world' --json)
echo "$ids"
case $ids in *'"ids":['*) ;; *) echo "encode --json gave no ids" >&2; exit 1 ;; esac

say shards
"$cupola" data prepare --tokenizer "$work/tokenizer.json" --input assets/held_out_book.txt.zst --output "$work/shards"

say plan
"$cupola" plan configs/shakespeare-char.toml --json

say train
"$cupola" train configs/shakespeare-char.toml --run "$work/run" \
    --set training.steps=60 --set training.validation_every=30 --set training.validation_sequences=32 \
    --set training.checkpoint_every=30 --set schedule.cosine.warmup_steps=10
test -s "$work/run/report.html" && test -s "$work/run/model.safetensors" && test -s "$work/run/metrics.jsonl"

say evaluate
result=$("$cupola" eval "$work/run" --text assets/tinyshakespeare.txt.zst --json)
echo "$result"
case $result in *'"bits_per_byte"'*) ;; *) echo "eval --json gave no bits per byte" >&2; exit 1 ;; esac

say generate
"$cupola" generate "$work/run" --prompt 'ROMEO:' --max-tokens 60 --seed 1

say chat
echo 'JULIET:' | "$cupola" chat "$work/run" --max-tokens 20

say report
"$cupola" report "$work/run"
