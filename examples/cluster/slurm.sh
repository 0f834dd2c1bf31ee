#!/bin/bash
# Slurm: a Ray cluster in the machines of one batch job, a sweep on it, nothing left behind.
#   sbatch examples/cluster/slurm.sh
# The sweep ends ahead of the job's time limit with everything saved; the same sbatch again goes on where it was.
# CHANGE marks what is yours. Ray's ports are open on these machines while the job runs, to whoever reaches them: on
# machines that others use too, set RAY_AUTH_MODE=token, with the same ~/.ray/auth_token everywhere.

#SBATCH --job-name=nasib-ray
#SBATCH --nodes=4                    # CHANGE
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1            # CHANGE
#SBATCH --cpus-per-task=8            # CHANGE
#SBATCH --time=12:00:00              # CHANGE
#SBATCH --requeue

set -euo pipefail

storage=$HOME/sweeps                 # CHANGE: a folder that all machines share
name=first
source "$HOME/nasib-ray/.venv/bin/activate" # CHANGE

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled} RAY_USAGE_STATS_ENABLED=0
# What a step may use is not taken over from the job by itself.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
head=$SLURMD_NODENAME
# Others' clusters may be on the same machines: ports by the number of the job, below those of Ray's workers.
port=$((6379 + SLURM_JOB_ID % 3000))
places=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" --temp-dir "/tmp/ray-$SLURM_JOB_ID")

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
  ray start --head --port="$port" --include-dashboard=false "${places[@]}" --block &
for _ in $(seq 60); do ray status --address "$head:$port" >/dev/null 2>&1 && break || sleep 2; done
if [ "$SLURM_NNODES" -gt 1 ]; then
  srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" \
    ray start --address="$head:$port" "${places[@]}" --block &
fi

# Ten minutes before Slurm ends the job.
ends=$(squeue --noheader --job "$SLURM_JOB_ID" --format %e)
deadline=$(date --date "$ends 10 minutes ago" '+%Y-%m-%d %H:%M:%S')
nasib-ray sweep --address "$head:$port" --data cifar10 --budget '1.5 gpu-days' --deadline "$deadline" \
  --storage "$storage" --name "$name"
