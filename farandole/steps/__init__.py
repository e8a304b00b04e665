"""Ready-made steps that a manifest can `use`; each is a factory labelled with `farandole.manifest.ready`."""
