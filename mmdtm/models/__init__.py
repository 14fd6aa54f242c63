"""Importing this package registers its classes into mmpretrain."""
