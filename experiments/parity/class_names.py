"""Writes imgcls_jax/pretrained/imagenet1k.txt: the WordNet id and the name of each ImageNet class.

python -m experiments.parity.class_names

The ids, in the order of the logits, and the words of their synsets are in timm 1.0.31, the words
from WordNet 3.0. A name is the first word of a synset, except for two that would be another's.
"""

import importlib.util
from pathlib import Path

OUT = Path(__file__).parents[2] / "imgcls_jax" / "pretrained" / "imagenet1k.txt"
TOLD_APART = {"n02012849": "crane (bird)", "n03710721": "maillot (tank suit)"}
LICENCE = """\
The 1,000 classes of ImageNet (ILSVRC 2012) in the order of the logits of published models: the
id of the synset in WordNet 3.0, and its first word. Written by
experiments/parity/class_names.py.

WordNet Release 3.0

This software and database is being provided to you, the LICENSEE, by Princeton University under
the following license. By obtaining, using and/or copying this software and database, you agree
that you have read, understood, and will comply with these terms and conditions.:

Permission to use, copy, modify and distribute this software and database and its documentation
for any purpose and without fee or royalty is hereby granted, provided that you agree to comply
with the following copyright notice and statements, including the disclaimer, and that the same
appear on ALL copies of the software, database and documentation, including modifications that
you make for internal use or for distribution.

WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.

THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS
OR WARRANTIES, EXPRESS OR IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON UNIVERSITY
MAKES NO REPRESENTATIONS OR WARRANTIES OF MERCHANTABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE
OR THAT THE USE OF THE LICENSED SOFTWARE, DATABASE OR DOCUMENTATION WILL NOT INFRINGE ANY THIRD
PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR OTHER RIGHTS.

The name of Princeton University or Princeton may not be used in advertising or publicity
pertaining to distribution of the software and/or database. Title to copyright in this software,
database and any associated documentation shall at all times remain with Princeton University
and LICENSEE agrees to preserve same.
"""


def main():
    place = Path(importlib.util.find_spec("timm").origin).parent / "data" / "_info"
    ids = (place / "imagenet_synsets.txt").read_text().split()
    words = dict(line.split("\t") for line in
                 (place / "imagenet_synset_to_lemma.txt").read_text().splitlines())
    names = {wnid: TOLD_APART.get(wnid, words[wnid].split(", ")[0]) for wnid in ids}
    assert len(set(names.values())) == 1000
    OUT.write_text("".join(f"# {line}".rstrip() + "\n" for line in LICENCE.splitlines())
                   + "".join(f"{wnid} {name}\n" for wnid, name in names.items()))


if __name__ == "__main__":
    main()
