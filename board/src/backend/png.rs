//! Pictures as files.

use std::io;

use crate::render::Picture;

/// A picture as a PNG file, 8 bits for each of red, green and blue.
///
/// # Errors
/// None that memory could cause; those of the encoder.
pub fn encode(picture: &Picture) -> io::Result<Vec<u8>> {
    let (width, height) = picture.panel().size();
    encode_rgb(width, height, &picture.to_rgb())
}

/// Rows of red, green and blue as a PNG file.
///
/// # Errors
/// When there are more or fewer bytes than pixels.
pub fn encode_rgb(width: u32, height: u32, rgb: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(file)
}
