//! A vfio-user server: sans-IO codec, socket server, mapped guest memory
