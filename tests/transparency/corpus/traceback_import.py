# fails: it is not caught
import no_such_module_anywhere
