#![no_std]
#![no_main]

use tender_guest::{Boot, guest, println};

guest!(main);

fn main(boot: Boot) -> u8 {
    println!("Hello from {} MiB of memory", boot.memory() >> 20);
    for argument in boot.arguments() {
        println!("argument: {argument}");
    }
    0
}
