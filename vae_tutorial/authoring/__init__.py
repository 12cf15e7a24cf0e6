"""For authors and instructors: make the exercise notebooks, and grade a folder of submissions."""
