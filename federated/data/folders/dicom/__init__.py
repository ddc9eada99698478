"""DICOM in and out: series of images, masks as DICOM-SEG and RTSTRUCT, and who is named in them.

pydicom reads the files and decodes their pixels, and highdicom writes segmentations. What is done
here is to say what the numbers mean and where they lie, and to refuse what leaves that open.
"""
