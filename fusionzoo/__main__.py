"""`python -m fusionzoo`, also what `accelerate launch -m fusionzoo train ...` runs."""

from fusionzoo.cli import main

if __name__ == "__main__":
    main()
