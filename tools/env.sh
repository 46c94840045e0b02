# shellcheck shell=bash
# Sourced, from anywhere in the repository, by what runs the tools of .cache/venv: nothing of the caller's own Ansible set-up
# (configuration, collections, fact caches) takes part, and nothing is written outside .cache.
chainops_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$chainops_repo/.cache/venv/bin:$PATH:$chainops_repo/.cache/services/usr/bin:/usr/sbin"
export ANSIBLE_CONFIG="$chainops_repo/tools/ansible.cfg"
export ANSIBLE_HOME="$chainops_repo/.cache/ansible"
export ANSIBLE_COLLECTIONS_PATH="$chainops_repo/.cache/collections"
export PYTHONPYCACHEPREFIX="$chainops_repo/.cache/pycache"
unset PYTHONDONTWRITEBYTECODE ANSIBLE_INVENTORY ANSIBLE_ROLES_PATH ANSIBLE_LIBRARY PYTHONPATH VIRTUAL_ENV
