"""The checks that hosts pass."""
