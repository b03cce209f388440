# Sourced by demo.sh and test.sh: makes the virtual environment .venv and installs requirements-test.txt (and so
# requirements.txt), once.
# Leaves the interpreter's path in $python. PYTHON=... chooses the interpreter that the environment is made with.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python

setup() {
    local base=${PYTHON:-python3} stamp=.venv/requirements.done
    if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "error: '$base' is no Python 3.10 or later; install one, or name it: PYTHON=python3.12 bash $0" >&2
        return 2
    fi
    if [ ! -x $python ]; then
        "$base" -m venv .venv || {
            echo "error: $base cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
            return 2
        }
    fi
    if ! cat requirements.txt requirements-test.txt | cmp -s - $stamp; then
        echo "installing requirements-test.txt into .venv"
        # uv installs the same packages several times faster; pip does where it cannot be had.
        $python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
        if $python -m uv --version >/dev/null 2>&1; then
            $python -m uv pip install --quiet --python $python -r requirements-test.txt
        else
            $python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
        fi || {
            echo "error: requirements-test.txt could not be installed (see above)" >&2
            return 2
        }
        cat requirements.txt requirements-test.txt >$stamp
    fi
}

setup || exit 2
