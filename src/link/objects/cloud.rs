//! Objects in a bucket: S3 and stores that speak its language.
