"""Credit inside other people's trainers; each module needs the package it is named after.

apportion.adapters.trl     a GRPOTrainer whose loss takes the advantages of any credit method
apportion.adapters.verl    credit methods as verl's advantage estimators
"""
