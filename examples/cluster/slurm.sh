#!/usr/bin/env bash
# A search on nodes of Slurm. What follows the script's name goes to rfsearch; --out is a folder that all nodes see:
#   sbatch examples/cluster/slurm.sh run --space folder --data DIR --out /shared/runs/mine
# Once its time is up, the same with `resume /shared/runs/mine` goes on.
#SBATCH --job-name=rfsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=08:00:00
set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on() { exec srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" "${@:2}"; }

ip=$(on "${nodes[0]}" hostname --ip-address | tr ' ' '\n' | grep --max-count=1 --fixed-strings .)
address=$ip:${PORT:-6379}
# Nobody else on these nodes may join: the tasks inherit a token of this job's own.
RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE RAY_AUTH_TOKEN
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT

on "${nodes[0]}" ray start --head --node-ip-address="$ip" --port="${address#*:}" "${resources[@]}" &
until ray health-check --address "$address" > /dev/null 2>&1; do
    kill -0 $! # the head has not ended
    sleep 1
done
for node in "${nodes[@]:1}"; do
    on "$node" ray start --address="$address" "${resources[@]}" &
done

rfsearch "$@" --address "$address"
