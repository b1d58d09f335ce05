fn main() {
    tender_guest::link();
}
